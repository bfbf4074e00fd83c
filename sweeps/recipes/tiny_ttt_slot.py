"""``tiny_ttt`` with SLOT inside: chunks are scored by SLOT on context, then learned from."""

from __future__ import annotations

from dataclasses import replace

from model.score.slot import Slot
from service.spec import RunSpec
from sweeps.recipes.tiny_ttt import tiny_ttt


def tiny_ttt_slot() -> RunSpec:
    """Both kinds of adaptation at once, each honest: weights learn from scored chunks, SLOT from scored context."""
    plain = tiny_ttt()
    score = plain.config.score
    ttt = replace(score.ttt, score_with=Slot(lr=0.004, steps=4))
    config = replace(plain.config, score=replace(score, ttt=ttt))
    return replace(plain, name="tiny_ttt_slot", config=config, notes="tiny with test-time training and SLOT together")
