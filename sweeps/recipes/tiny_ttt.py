"""``tiny`` with test-time training, to try it in a minute."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.ttt import Ttt
from service.spec import RunSpec
from sweeps.recipes.tiny import tiny


def tiny_ttt() -> RunSpec:
    """``tiny``, and a third score that learns from each 2,048 tokens once they are scored."""
    plain = tiny()
    ttt = Ttt(lr=0.05, epochs=1, chunk_tokens=2048)
    config = replace(plain.config, score=replace(plain.config.score, ttt=ttt))
    notes = "tiny with legal, score-first test-time training"
    return replace(plain, name="tiny_ttt", config=config, notes=notes, baseline="tiny")
