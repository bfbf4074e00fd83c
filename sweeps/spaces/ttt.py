"""Passes of test-time training over each scored chunk, and its rate: eval-time knobs on the same artifacts."""

from __future__ import annotations

from model.stages import Stage
from service.spec import SweepSpec

TTT_EPOCHS = SweepSpec(
    name="ttt",
    recipe="tiny_ttt",
    space={"score.ttt.epochs": (1, 2, 3), "score.ttt.lr": (0.02, 0.05)},
    objective=Stage.TTT,
)
"""Around the field's three epochs (openai/parameter-golf #549, #1413, #1493)."""
