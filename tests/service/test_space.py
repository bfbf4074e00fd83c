from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import SpecError
from service.space import LARGEST_GRID, Range, Search, corners, parse_axis, points, size

RATE = Range(low=0.001, high=0.03, log=True)
RANGES = (
    RATE,
    Range(low=0.0, high=1.0),
    Range(low=2, high=16, step=3),
    Range(low=0.1, high=0.75, step=0.2),
    Range(low=1, high=6),
    Range(low=1, high=100, log=True),
    Range(low=-0.5, high=-0.1),
)


@pytest.mark.parametrize(
    ("word", "axis"),
    [
        ("p=0.001..0.03:log", RATE),
        ("p=2..16:step=2", Range(low=2, high=16, step=2)),
        ("p=1e-3..3e-2", Range(low=0.001, high=0.03)),
        ("p=-1..1", Range(low=-1, high=1)),
        ("p=.5..1.", Range(low=0.5, high=1.0)),
        ("p=0.1,0.2", (0.1, 0.2)),
        ("p=context,scored,none", ("context", "scored", None)),
        ("p=../a..b/c.jsonl", ("../a..b/c.jsonl",)),
    ],
)
def test_an_axis_is_values_or_a_range(word: str, axis: Any) -> None:
    assert parse_axis(word) == ("p", axis)
    if isinstance(axis, Range):
        assert parse_axis(f"p={axis}") == ("p", axis), "a range reads as it is written"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("p=3..1", "from a lower to a higher"),
        ("p=1..1", "from a lower to a higher"),
        ("p=0..1:log", "begins above 0"),
        ("p=1..9:step=0", "step must be above 0 and within it"),
        ("p=1..9:step=9", "step must be above 0 and within it"),
        ("p=1..9:step=many", "finite numbers"),
        ("p=1..9:lin", "'lin': behind a range may stand log or step=S"),
        ("p=1..1e999", "finite numbers"),
        ("p=", "PATH=LOW..HIGH"),
        ("p=1,2,1", "given twice"),
        ("=1..2", "PATH=LOW..HIGH"),
    ],
)
def test_what_is_no_axis_is_refused_by_its_words(word: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        parse_axis(word)
    assert "--space" in str(refused.value)


@pytest.mark.parametrize("axis", RANGES, ids=str)
@given(seed=st.integers(0, 2**32))
def test_what_is_drawn_from_a_range_lies_in_it(axis: Range, seed: int) -> None:
    value = axis.draw(random.Random(seed))
    assert axis.holds(value)
    assert axis.low <= value <= axis.high
    assert axis.fit(value) == value
    assert isinstance(value, int) == axis.whole
    if axis.step is not None:
        steps = (value - axis.low) / axis.step
        assert steps == pytest.approx(round(steps))


def test_a_log_range_is_even_in_the_logarithm_and_a_whole_one_gives_each_number_its_share() -> None:
    dice = random.Random(0)
    drawn = [RATE.draw(dice) for _ in range(4000)]
    middle = math.sqrt(RATE.low * RATE.high)
    assert sum(value < middle for value in drawn) / len(drawn) == pytest.approx(0.5, abs=0.03)
    faces = [Range(low=1, high=6).draw(dice) for _ in range(6000)]
    assert all(abs(faces.count(face) - 1000) < 150 for face in range(1, 7))


@pytest.mark.parametrize(("axis", "count"), zip(RANGES, (None, None, 5, 4, 6, 100, None), strict=True), ids=str)
def test_a_range_counts_what_can_be_counted(axis: Range, count: int | None) -> None:
    assert axis.count == count
    if count is not None:
        assert len({axis.draw(random.Random(seed)) for seed in range(60 * count)}) == count
        assert axis.holds(axis.last)
    assert size({"a": (1, 2, 3), "b": axis}) == (None if count is None else 3 * count)


@pytest.mark.parametrize(
    ("axis", "value"), [(RATE, 0.04), (RATE, "0.01"), (RATE, True), (RANGES[2], 4), (RANGES[4], 1.5), (RANGES[2], 16)]
)
def test_what_is_not_in_a_range_is_not_held(axis: Range, value: Any) -> None:
    assert not axis.holds(value)


def test_a_grid_refuses_a_range_by_name_and_a_product_that_is_too_large() -> None:
    with pytest.raises(SpecError, match=r"net\.b=0\.001\.\.0\.03:log: a grid takes values and no range; .*--trials N"):
        points({"net.a": (1, 2), "net.b": RATE}, Search())
    huge = {f"a{i}": tuple(range(100)) for i in range(3)}
    with pytest.raises(SpecError, match=r"a grid of 1,000,000 points: at most 100,000; give --search random"):
        points(huge, Search())
    assert len(points(huge, Search(how="random", trials=4))) == 4


def test_random_takes_ranges_and_is_the_same_each_time() -> None:
    space = {"a": RATE, "b": ("x", "y"), "c": Range(low=1, high=3)}
    drawn = points(space, Search(how="random", trials=50))
    assert drawn == points(space, Search(how="random", trials=50))
    assert drawn[:20] == points(space, Search(how="random", trials=20)), "more trials add to fewer"
    assert len({tuple(point.values()) for point in drawn}) == 50
    assert all(space["a"].holds(p["a"]) and p["b"] in "xy" and p["c"] in (1, 2, 3) for p in drawn)  # type: ignore[union-attr]
    few = points({"b": ("x", "y"), "c": Range(low=1, high=3)}, Search(how="random", trials=50))
    assert {tuple(point.values()) for point in few} == set(itertools.product("xy", (1, 2, 3)))


def test_corners_are_the_values_and_the_ends_of_the_ranges() -> None:
    space = {"a": (1, 2), "b": Range(low=0.1, high=0.75, step=0.2)}
    assert list(corners(space)) == [{"a": a, "b": b} for a in (1, 2) for b in (0.1, 0.7)]
    huge = {f"a{i}": tuple(range(100)) for i in range(4)}
    found = list(corners(huge))
    assert 0 < len(found) < LARGEST_GRID
    assert found == list(corners(huge))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"how": "bayes"}, "search 'bayes': there is grid, random and tpe"),
        ({"how": "tpe"}, "how many trials tpe takes with --trials N, 1 or more; got 0"),
        ({"how": "random", "trials": -1}, "got -1"),
        ({"trials": 3}, "3 trials of a grid"),
        ({"how": "tpe", "trials": 3, "at_once": 0}, "at_once must be 1 or more, got 0"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Search(**fields)
