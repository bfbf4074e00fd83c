"""openai/parameter-golf #1493: #1394 with parallel residuals, a third looped layer and legal test-time training."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.ttt import Ttt
from model.net.parallel import ParallelResidual
from model.net.recurrence import Recurrence
from service.spec import RunSpec
from sweeps.recipes.credits import PR1493
from sweeps.recipes.pr1394 import pr1394
from sweeps.recipes.twins import twin_of


def pr1493() -> RunSpec:
    """Layers 3 to 5 looped from 0.35 of the clock on, parallel residuals from layer 7, QK gain 5.25, score-first SGD:
    35,944,536 parameters.

    Honest: each chunk is scored before it is learned from. GPTQ as in :func:`pr1394`.
    """
    spec = pr1394()
    config = spec.config
    return replace(
        spec,
        name="pr1493",
        config=replace(
            config,
            net=replace(
                config.net,
                qk_gain=5.25,
                parallel=ParallelResidual(),
                recurrence=Recurrence(first=3, last=5, start=0.35),
            ),
            train=replace(
                config.train,
                warmdown_frac=0.72,
                ema_decay=0.9965,
                optim=replace(config.train.optim, matrix_lr=0.022, muon_wd=0.095),
            ),
            score=replace(config.score, ttt=Ttt()),
        ),
        notes="#1493 as coded",
        credits=(*spec.credits, PR1493),
    )


def pr1493_tiny() -> RunSpec:
    """:func:`pr1493` on a CPU core, in seconds."""
    return twin_of(pr1493(), "pr1493_tiny")
