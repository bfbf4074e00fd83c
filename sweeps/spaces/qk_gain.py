"""The start value of the queries' learned gain: trained once per value and seed."""

from __future__ import annotations

from model.stages import Stage
from service.spec import SweepSpec

QK_GAIN = SweepSpec(
    name="qk_gain",
    recipe="tiny",
    space={"net.qk_gain": (1.0, 2.5, 4.0, 5.25)},
    objective=Stage.SLIDING,
)
"""Around the field's settings (openai/parameter-golf: 1.5 in #1125, 4.0 in #1303, 5.25 in #1488); ``tiny`` has 1.5."""
