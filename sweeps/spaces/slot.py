"""SLOT's learning rate and number of steps: eval-time knobs, compared on the same artifacts."""

from __future__ import annotations

from service.spec import SweepSpec

SLOT_LR_STEPS = SweepSpec(
    name="slot",
    recipe="tiny",
    space={"score.slot.lr": (0.004, 0.012), "score.slot.steps": (4, 12)},
)
"""Around the field's settings (openai/parameter-golf: 0.008 x 16 in #1303, 0.012 x 24 in #1488)."""
