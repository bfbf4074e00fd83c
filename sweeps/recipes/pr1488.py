"""openai/parameter-golf #1488 (ndokutovich): #1313 after training on the validation split; withdrawn by its author."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from service.spec import RunSpec
from sweeps.recipes.credits import PR1488
from sweeps.recipes.pr1313 import pr1313
from sweeps.recipes.twins import twin_of


def pr1488() -> RunSpec:
    """QK gain 5.25 and ten epochs of AdamW on the validation split before packing: 26,862,694 parameters.

    **It leaks twice**, in those epochs and in SLOT: 0.8265 bits per byte. In the script late QAT is dead in training
    but live in those epochs, which run uncompiled; here it is off in both. There, freezing one block leaves the
    embedding free; here it is frozen, too. Its README lists an artifact of 15,760,000 bytes for seed 2024; the log has
    15,837,372.
    """
    spec = pr1313()
    return replace(
        spec,
        name="pr1488",
        config=replace(
            spec.config,
            net=replace(spec.config.net, qk_gain=5.25),
            adapt=AdaptConfig(prequant=Prequant(lr=0.00045, epochs=10, freeze_blocks=1)),
        ),
        notes="#1488 as coded: leaks twice, trained on the validation split and SLOT on what it scores",
        credits=(*spec.credits, PR1488),
    )


def pr1488_tiny() -> RunSpec:
    """:func:`pr1488` on a CPU core, in seconds."""
    return twin_of(pr1488(), "pr1488_tiny")
