"""Sweeps by name, as values."""

from __future__ import annotations

from service.spec import SweepSpec
from sweeps.spaces.slot import SLOT_LR_STEPS
from sweeps.spaces.study import SLOT_STUDY

SWEEPS: dict[str, SweepSpec] = {sweep.name: sweep for sweep in (SLOT_LR_STEPS, SLOT_STUDY)}
