"""Paired timing: the two sides in turn, a ratio from each pair, the median of the ratios."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """How many times longer the first side takes than the second."""

    median: float
    lowest: float
    highest: float
    first_s: float
    """Median seconds of the first side."""
    second_s: float


def seconds(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(what: str, first: Callable[[], object], second: Callable[[], object], pairs: int) -> Ratio:
    """Time both sides ``pairs`` times in turn, after one call of each that doesn't count; says so on stderr."""
    first(), second()
    times = []
    for i in range(pairs):
        print(f"bench: {what}, pair {i + 1} of {pairs}", file=sys.stderr, flush=True)
        times.append((seconds(first), seconds(second)))
    ratios = sorted(a / b for a, b in times)
    return Ratio(
        median=statistics.median(ratios),
        lowest=ratios[0],
        highest=ratios[-1],
        first_s=statistics.median(a for a, _ in times),
        second_s=statistics.median(b for _, b in times),
    )
