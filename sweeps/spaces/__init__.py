"""Sweeps by name, as values."""

from __future__ import annotations

from service.spec import SweepSpec
from sweeps.spaces.combined import COMBINED
from sweeps.spaces.house import HOUSE_PARTS
from sweeps.spaces.qk_gain import QK_GAIN
from sweeps.spaces.slot import SLOT_LR_STEPS
from sweeps.spaces.study import SLOT_STUDY
from sweeps.spaces.ttt import TTT_EPOCHS

SWEEPS: dict[str, SweepSpec] = {
    sweep.name: sweep for sweep in (SLOT_LR_STEPS, QK_GAIN, TTT_EPOCHS, COMBINED, SLOT_STUDY, HOUSE_PARTS)
}
