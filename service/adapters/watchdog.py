"""Watches a gang from outside: ends one that has hung, or whose clock has passed its cap.

There are two clocks. The stage's own, which the rules of the field look at, comes with the ranks' beats; the process
clock counts starting, compiling and writing as well. Both are compared by what this process's monotonic clock saw, so
that a wall clock which jumps ends nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from model.pulse import BEAT, read_beat

LOOK_S = 0.5
"""How often to look. What a look costs: one small read a rank."""
STARTING_S = 120.0
"""How long at least a rank may take to its first beat: importing torch from a cold disk is slow, and not hung."""


class Stop(StrEnum):
    """Why a gang is ended from outside."""

    DEADLINE = "deadline"
    """The process clock: it should have been over long ago."""
    OWN_CLOCK = "own clock"
    """The stage's own clock passed the cap: no record can come of it."""
    SILENCE = "silence"
    """A rank doesn't get on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a gang is ended."""

    deadline_s: float
    """On the process clock."""
    own_s: float | None = None
    """On the stage's own clock; None: it has none."""
    silence_s: float | None = None
    """Without a beat of some rank; None: this stage doesn't beat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """What the watchdog found."""

    stop: Stop
    why: str


class Watchdog:
    """One gang's; it begins to count when it is made."""

    def __init__(self, folder: Path, limits: Limits, ranks: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        """``folder`` is where the ranks' beats are written."""
        self.folder, self.limits, self.ranks, self.clock_s = folder, limits, ranks, clock_s
        self.started = clock_s()
        self.beats = dict.fromkeys(range(ranks), 0)
        self.heard = dict.fromkeys(range(ranks), self.started)
        """When each rank's count was last seen to change."""
        self.own_s = 0.0

    def look(self) -> Stopped | None:
        """What is wrong now; None when nothing is."""
        now, limits = self.clock_s(), self.limits
        self._listen(now)
        if now - self.started > limits.deadline_s:
            return Stopped(stop=Stop.DEADLINE, why=f"not finished after {limits.deadline_s:.0f} s")
        if limits.own_s is not None and self.own_s > limits.own_s:
            why = f"its own clock shows {self.own_s:.1f} s, and the cap is {limits.own_s:g} s"
            return Stopped(stop=Stop.OWN_CLOCK, why=why)
        if limits.silence_s is not None and any(now - self.heard[rank] > self._patience_s(rank) for rank in self.beats):
            return Stopped(stop=Stop.SILENCE, why=self._silent(now))
        return None

    def _listen(self, now: float) -> None:
        for rank in range(self.ranks):
            try:
                beat = read_beat((self.folder / f"{BEAT}.{rank}").read_text(encoding="ascii", errors="replace"))
            except (OSError, ValueError):
                continue
            if beat is not None and beat[0] != self.beats[rank]:
                self.beats[rank], own_s = beat
                self.heard[rank], self.own_s = now, max(self.own_s, own_s)

    def _patience_s(self, rank: int) -> float:
        assert self.limits.silence_s is not None
        return self.limits.silence_s if self.beats[rank] else max(self.limits.silence_s, STARTING_S)

    def _silent(self, now: float) -> str:
        """Who has come least far is whom the others wait for."""
        behind = min(self.beats, key=lambda rank: (self.beats[rank], self.heard[rank]))
        others = {count for rank, count in self.beats.items() if rank != behind}
        of = f" (others: {max(others)})" if others else ""
        return (
            f"hung: no step for {now - min(self.heard.values()):.0f} s; "
            f"rank {behind} came least far, {self.beats[behind]} beats{of}"
        )
