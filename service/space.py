"""What a sweep searches: axes of values or ranges, and how overlays are taken from them. Pure values, no clock."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from model.overlay import parse_value
from service.errors import SpecError

RANGE = re.compile(r"([-+\d.eE]+?)\.\.([-+\d.eE]+)(?::(.*))?")
LARGEST_GRID = 100_000
"""Points of a product that are written out at most."""
DIGITS = 4
"""Significant digits of a value that is taken from a range, so that it can be read, named and typed again."""
MISSES = 100
"""How often in a row something that was there before is drawn before a space counts as used up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both ends, and the step, are ints."""

    low: float
    high: float
    log: bool = False
    """Even in the logarithm."""
    step: float | None = None
    """Only ``low``, ``low + step`` ...; None: any, of whole numbers every one."""

    def __post_init__(self) -> None:
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise SpecError(f"range {self}: its ends and step must be finite numbers")
        if not self.low < self.high:
            raise SpecError(f"range {self}: it must run from a lower to a higher number")
        if self.log and (self.low <= 0 or self.step is not None):
            raise SpecError(f"range {self}: one that is even in the logarithm begins above 0 and has no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise SpecError(f"range {self}: its step must be above 0 and within it")

    def __str__(self) -> str:
        how = ":log" if self.log else "" if self.step is None else f":step={self.step}"
        return f"{self.low}..{self.high}{how}"

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return all(type(number) is int for number in (self.low, self.high, 1 if self.step is None else self.step))

    @property
    def count(self) -> int | None:
        """How many numbers it holds; None where that is no matter of counting."""
        if self.step is None:
            return int(self.high - self.low) + 1 if self.whole else None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def last(self) -> float:
        """The highest number in it."""
        return (
            self.high if self.step is None or self.count is None else self.fit(self.low + (self.count - 1) * self.step)
        )

    def fit(self, value: float) -> float:
        """The number of this range that ``value``, which lies in it, stands for."""
        if self.step is not None:
            value = float(f"{self.low + round((value - self.low) / self.step) * self.step:.10g}")
        if self.whole:
            return round(value)
        if self.step is not None:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one of its numbers."""
        if type(value) not in (int, float) or not self.low <= value <= self.last:
            return False
        if self.step is None:
            return not self.whole or value == round(value)
        return math.isclose(self.fit(value), value, rel_tol=1e-9, abs_tol=1e-12)

    def draw(self, dice: random.Random) -> float:
        """One number by chance."""
        if self.step is not None:
            return self.fit(self.low + dice.randrange(self.count or 1) * self.step)
        if self.whole and not self.log:
            return dice.randint(int(self.low), int(self.high))
        # Whole numbers take their share of the line, half a unit to either side.
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        number = math.exp(dice.uniform(math.log(low), math.log(high))) if self.log else dice.uniform(low, high)
        return self.fit(min(max(number, self.low), self.high))


Axis = tuple[Any, ...] | Range
Space = Mapping[str, Axis]
"""Dotted path -> the values that are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How the trials are taken from the axes."""

    how: Literal["grid", "random", "tpe"] = "grid"
    """``grid``: their product. ``random``: drawn, without repeats, the same ones each time. ``tpe``: proposed from the
    results of those before by a tree-structured Parzen estimator (J. Bergstra and others, Algorithms for
    hyper-parameter optimization, 2011), round by round."""
    trials: int = 0
    """How many, at most; 0 for a grid, whose axes say it."""
    at_once: int = 4
    """Proposals of one round of ``tpe``, which run side by side. Another number gives other proposals."""

    def __post_init__(self) -> None:
        if self.how not in ("grid", "random", "tpe"):
            raise SpecError(f"search {self.how!r}: there is grid, random and tpe")
        if self.how == "grid" and self.trials:
            raise SpecError(f"{self.trials} trials of a grid: it has as many as its axes give; take random or tpe")
        if self.how != "grid" and self.trials < 1:
            raise SpecError(f"say how many trials {self.how} takes with --trials N, 1 or more; got {self.trials}")
        if self.at_once < 1:
            raise SpecError(f"search.at_once must be 1 or more, got {self.at_once}")


def parse_axis(word: str) -> tuple[str, Axis]:
    """``PATH=V1,V2,...`` or ``PATH=LOW..HIGH`` with ``:log`` or ``:step=S`` behind.

    Raises:
        SpecError: it is neither, or a value is given twice.
    """
    path, equals, text = word.partition("=")
    try:
        if found := RANGE.fullmatch(text):
            axis: Axis = _range(*found.groups())
        else:
            axis = tuple(parse_value(part) for part in text.split(",") if part)
            if len(set(axis)) < len(axis):
                raise SpecError("a value is given twice")
    except SpecError as error:
        raise SpecError(f"--space {word!r}: {error}") from error
    if not equals or not path or not axis:
        example = "score.slot.lr=0.004,0.012 or score.slot.lr=0.001..0.03:log"
        raise SpecError(f"--space {word!r}: write it as PATH=V1,V2,... or PATH=LOW..HIGH, e.g. {example}")
    return path, axis


def _range(low: str, high: str, how: str | None) -> Range:
    name, _, step = (how or "").partition("=")
    if how not in (None, "log") and name != "step":
        raise SpecError(f"{how!r}: behind a range may stand log or step=S")
    return Range(
        low=parse_value(low), high=parse_value(high), log=how == "log", step=parse_value(step) if step else None
    )


def size(space: Space) -> int | None:
    """Points of the product; None where a range has more than can be counted."""
    counts = [axis.count if isinstance(axis, Range) else len(axis) for axis in space.values()]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def points(space: Space, search: Search) -> list[dict[str, Any]]:
    """The overlays that are known before anything has run; none without axes, and none of ``tpe``.

    Raises:
        SpecError: a range in a grid, or a grid too large to be written out.
    """
    if not space or search.how == "tpe":
        return []
    ranges = [path for path, axis in space.items() if isinstance(axis, Range)]
    if search.how == "random":
        return list(_drawn(space, search.trials)) if ranges else _chosen(space, search.trials)
    if ranges:
        raise SpecError(
            f"{ranges[0]}={space[ranges[0]]}: a grid takes values and no range; give --search random or tpe with "
            "--trials N, or the values themselves"
        )
    product = size(space) or 0
    if product > LARGEST_GRID:
        raise SpecError(f"a grid of {product:,} points: at most {LARGEST_GRID:,}; give --search random with --trials N")
    return [_point(space, number) for number in range(product)]


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of values and of the ranges' ends; of very many a part, by chance and the same each time."""
    ends = {path: (axis.low, axis.last) if isinstance(axis, Range) else axis for path, axis in space.items()}
    if math.prod(map(len, ends.values())) <= LARGEST_GRID:
        for values in itertools.product(*ends.values()):
            yield dict(zip(ends, values, strict=True))
    else:
        yield from _chosen(ends, LARGEST_GRID // 10)


def _chosen(space: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """``count`` points of a product, in its order; drawn by number, so that a huge one is never written out."""
    product = math.prod(len(values) for values in space.values())
    if count >= product:
        return [_point(space, number) for number in range(product)]
    # Seeded by the axes and nothing else.
    return [_point(space, number) for number in sorted(random.Random(repr(space)).sample(range(product), count))]


def _drawn(space: Space, count: int) -> Iterator[dict[str, Any]]:
    """``count`` points of a space with ranges, none twice."""
    dice, misses = random.Random(repr(space)), 0
    seen: set[str] = set()
    while len(seen) < count and misses < MISSES:
        point = {p: axis.draw(dice) if isinstance(axis, Range) else dice.choice(axis) for p, axis in space.items()}
        if (by := repr(point)) in seen:
            misses += 1
            continue
        seen.add(by)
        misses = 0
        yield point


def _point(space: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One point of a product, by its place in it; the last axis runs fastest."""
    point = {}
    for path, values in reversed(list(space.items())):
        number, place = divmod(number, len(values))
        point[path] = values[place]
    return dict(reversed(list(point.items())))
