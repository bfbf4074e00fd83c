"""openai/parameter-golf #1313: #1303 with three constants of its evaluation changed."""

from __future__ import annotations

from dataclasses import replace

from model.score.windows import WindowConfig
from service.spec import RunSpec
from sweeps.recipes.credits import PR1313
from sweeps.recipes.pr1303 import pr1303
from sweeps.recipes.twins import twin_of


def pr1313() -> RunSpec:
    """SLOT-24 at 0.012 -> 0.001 with stride 96 on #1303's training; **it leaks** as that does, 0.864 bits per byte.

    As in #1303, late QAT and SWA are claimed and have no effect. Its sliding score has a stride of 96, too; the field
    adds one with 64.
    """
    spec = pr1303()
    score = replace(
        spec.config.score,
        windows=WindowConfig(seq_len=2048, stride=96),
        slot=replace(spec.config.score.slot, steps=24, lr=0.012, lr_min=0.001),
    )
    notes = "#1313 as coded: leaks, #1303 with more SLOT steps"
    config = replace(spec.config, score=score)
    return replace(spec, name="pr1313", config=config, notes=notes, credits=(*spec.credits, PR1313))


def pr1313_tiny() -> RunSpec:
    """:func:`pr1313` on a CPU core, in seconds."""
    return twin_of(pr1313(), "pr1313_tiny")
