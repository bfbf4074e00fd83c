"""What adapting to the validation stream gains, honestly and not: the trials of docs/slot_study.md."""

from __future__ import annotations

from model.adapt.adam import AdamRule
from model.adapt.sgd import SgdRule
from model.adapt.ttt import Ttt
from model.stages import Stage
from service.spec import SweepSpec

SLOT_STUDY = SweepSpec(
    name="study",
    recipe="small",
    also=(
        # The field's form: fitted on the very tokens that are scored.
        (Stage.SLOT, {"score.slot.loss_on": "scored"}),
        # Honest: fitted on context, all of it or its end, gently or as hard as the field does.
        (Stage.SLOT, {"score.slot.lr": 0.012}),
        (Stage.SLOT, {"score.slot.lr": 0.003}),
        (Stage.SLOT, {"score.slot.lr": 0.003, "score.slot.steps": 8}),
        (Stage.SLOT, {"score.slot.lr": 0.001, "score.slot.lr_min": 0.0001}),
        (Stage.SLOT, {"score.slot.lr": 0.003, "score.slot.context_tokens": 128}),
        (Stage.SLOT, {"score.slot.lr": 0.003, "score.slot.shift": False}),
        # Score-first test-time training, plain and with honest SLOT on top.
        (Stage.TTT, {"score.ttt": Ttt(rule=SgdRule(), lr=0.05, epochs=1, chunk_tokens=8192)}),
        (Stage.TTT, {"score.ttt": Ttt(rule=SgdRule(), lr=0.05, epochs=3, chunk_tokens=8192)}),
        (Stage.TTT, {"score.ttt": Ttt(rule=AdamRule(), lr=0.001, epochs=2, chunk_tokens=8192)}),
        (Stage.TTT, {}),
    ),
)
"""Every trial is compared with sliding on the same artifacts, seed by seed."""
