"""Sweeps by name, as values."""

from __future__ import annotations

from service.spec import SweepSpec
from sweeps.spaces.slot import SLOT_LR_STEPS

SWEEPS: dict[str, SweepSpec] = {sweep.name: sweep for sweep in (SLOT_LR_STEPS,)}
