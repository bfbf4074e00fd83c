"""``tiny`` trained on the validation split before packing: what no record may do, to see by how much it flatters."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from service.spec import RunSpec
from sweeps.recipes.tiny import tiny


def tiny_prequant() -> RunSpec:
    """``tiny`` with AdamW on the validation split between training and packing; every score of it is exposed."""
    plain = tiny()
    adapt = AdaptConfig(prequant=Prequant(lr=0.002, epochs=3, batch_seqs=8, micro_seqs=4))
    config = replace(plain.config, adapt=adapt)
    notes = "tiny that has seen the validation split: illegal"
    return replace(plain, name="tiny_prequant", config=config, notes=notes, baseline="tiny")
