"""Which nodes may be hired: what a preflight measured on one, what that is held against, and who is set apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SLOWER = {"cuda": 1.10, "cpu": 3.0}
"""How many times the median of its kind a node's step may take, by device. Pods of the field differ by up to 8 % in
step count (22 merged log sets); CPUs are shared."""
ENOUGH = 3
"""Measurements that make a median worth trusting."""
APART_S = 24 * 3600.0
"""How long a node is set apart: providers give the same address to another machine in time."""
STRIKES = 2
"""Against a node within one run, and it is set apart: a hung gang is one, a GPU that reports an error is both."""

FRESH_S = 3600.0
"""How long a preflight is good for: nodes get slow while they run."""


class Checks(StrEnum):
    """Which gangs begin with a preflight."""

    AUTO = "auto"
    """Those with GPUs, which cost money."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What a preflight measured."""

    node: str
    kind: str
    """Only nodes of one kind are compared: hardware, device and shape of the gang."""
    step_ms: float
    at_s: float
    """Seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """A node that is not to be hired."""

    node: str
    why: str
    since_s: float
    """Seconds since the epoch."""

    def over(self, now_s: float) -> bool:
        """Whether it may be tried again; a clock that went back keeps it apart."""
        return now_s - self.since_s > APART_S


def checked_lately(node: str, device: str, speeds: Sequence[Speed], now_s: float) -> bool:
    """Whether a preflight of ``node`` for gangs on ``device`` is so fresh that it needs no other."""
    return any(one.node == node and one.kind.endswith(device) and 0 <= now_s - one.at_s < FRESH_S for one in speeds)


def too_slow(speed: Speed, others: Sequence[Speed], device: str) -> str:
    """Why a node is too slow for its kind; empty while it isn't, or while too few were measured to say so."""
    newest = {other.node: other.step_ms for other in others if other.kind == speed.kind and other.node != speed.node}
    own = [other.step_ms for other in others if other.kind == speed.kind and other.node == speed.node]
    known = [*newest.values(), *own]
    if len(known) < ENOUGH:
        return ""
    usual = statistics.median(known)
    if speed.step_ms <= SLOWER[device] * usual:
        return ""
    return (
        f"slow: {speed.step_ms:.2f} ms a step, {speed.step_ms / usual:.2f} times the median {usual:.2f} ms of "
        f"{len(known)} measurements of {speed.kind}; up to {SLOWER[device]:g} is usual"
    )
