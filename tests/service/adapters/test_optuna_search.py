from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from typing import Any

import pytest

from service.adapters.optuna_search import OptunaSampler
from service.space import Range, Search, Space, points

SPACE: Space = {
    "a": Range(low=0.001, high=0.1, log=True),
    "b": Range(low=0.0, high=1.0),
    "c": ("x", None, 3),
    "d": Range(low=2, high=17, step=2),
}
ROUND = 4
TRIALS = 30


def planted(point: Mapping[str, Any]) -> float:
    """A quadratic with its minimum of 0 inside the space."""
    choice = {"x": 0.2, None: 0.0, 3: 0.4}[point["c"]]
    return (math.log10(point["a"]) + 2) ** 2 + (point["b"] - 0.3) ** 2 + choice + ((point["d"] - 8) / 14) ** 2


def search(seed: int, trials: int = TRIALS, **given: Any) -> list[dict[str, Any]]:
    """The proposals of a search for the planted minimum, round by round."""
    sampler, found = OptunaSampler(SPACE, seed, **given), list[dict[str, Any]]()
    while len(found) < trials:
        new = [sampler.ask() for _ in range(min(ROUND, trials - len(found)))]
        sampler.tell([planted(point) for point in new])
        found += new
    return found


def test_the_same_history_gives_the_same_proposals_and_another_one_gives_others() -> None:
    def rounds(third: float | None) -> list[dict[str, Any]]:
        sampler, found = OptunaSampler(SPACE, 7), list[dict[str, Any]]()
        for number in range(8):
            new = [sampler.ask() for _ in range(ROUND)]
            sampler.tell([third if number == 2 else planted(point) for point in new])
            found += new
        return found

    assert rounds(0.5) == rounds(0.5)
    assert rounds(None) == rounds(None)
    same = 3 * ROUND
    assert rounds(0.5)[:same] == rounds(None)[:same]
    assert rounds(0.5)[same:] != rounds(None)[same:]
    assert search(1) != search(2)


def test_it_finds_more_than_the_same_number_of_random_draws() -> None:
    seeds = range(12)
    tpe = statistics.mean(min(map(planted, search(seed))) for seed in seeds)
    dice = random.Random(0)
    draws = [points({**SPACE, "salt": (dice.random(),)}, Search(how="random", trials=TRIALS)) for _ in seeds]
    assert all(len(each) == TRIALS for each in draws)
    assert tpe < 0.8 * statistics.mean(min(map(planted, each)) for each in draws)


def test_every_proposal_lies_in_the_space_and_reads_as_a_short_number() -> None:
    for point in search(3, trials=60):
        assert list(point) == list(SPACE)
        for path, axis in SPACE.items():
            assert axis.holds(point[path]) if isinstance(axis, Range) else point[path] in axis
        assert type(point["d"]) is int
        assert len(f"{point['a']:.12g}") <= len("0.001234")


def test_what_it_is_given_comes_first() -> None:
    first = {"a": 0.008, "b": 0.25, "c": None, "d": 6}
    assert search(1, trials=8, first=first)[0] == first
    assert search(1, trials=8, first=first)[1] != first


def test_values_that_are_no_numbers_or_words_are_proposed_as_they_are() -> None:
    values = ((1, 2), frozenset({3}), True)
    sampler = OptunaSampler({"a": values}, 0)
    found = {sampler.ask()["a"] for _ in range(30)}
    assert found == set(values)


def test_it_wants_to_be_told_of_all_that_it_was_asked() -> None:
    sampler = OptunaSampler(SPACE, 0)
    sampler.ask()
    with pytest.raises(AssertionError, match="1 are open, got 2"):
        sampler.tell([1.0, 2.0])
