from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from model.score.exposure import Event, Exposure, exposure_json, read_exposure

spans = st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda pair: (pair[0], sum(pair)))
actions = st.lists(
    st.one_of(
        st.tuples(st.just("trained"), spans, st.none()),
        st.tuples(st.just("scored"), spans, st.one_of(st.none(), st.integers(1, 25))),
    ),
    max_size=12,
)


@given(actions)
def test_a_target_is_exposed_when_it_or_a_later_one_was_learned_before_it_was_scored(
    actions: list[tuple[str, tuple[int, int], int | None]],
) -> None:
    exposure, learned, exposed = Exposure(), set[int](), 0
    for kind, (first, stop), fitted_to in actions:
        if kind == "trained":
            exposure.trained(first, stop)
            learned |= set(range(first, stop))
        else:
            exposure.scored(first, stop, fitted_to)
            known = learned | set(range(fitted_to or 0))
            exposed += sum(any(other >= target for other in known) for target in range(first, stop))
    assert exposure.exposed == exposed


def test_chunks_scored_before_they_are_trained_on_are_clean_and_the_other_way_round_is_not() -> None:
    legal, illegal = Exposure(), Exposure()
    for first in (0, 10, 20):
        legal.scored(first, first + 10)
        legal.trained(first, first + 10)
        illegal.trained(first, first + 10)
        illegal.scored(first, first + 10)
    assert (legal.exposed, illegal.exposed) == (0, 30)


def test_neighbours_that_say_the_same_are_one_event() -> None:
    exposure = Exposure()
    for first in (0, 4, 8):
        exposure.scored(first, first + 4, fitted_to=first)
    exposure.scored(12, 14, fitted_to=14)
    exposure.trained(0, 5)
    exposure.trained(5, 9)
    assert exposure.events == [
        Event(kind="scored", first=0, stop=12, fitted_ahead=0),
        Event(kind="scored", first=12, stop=14, fitted_ahead=2),
        Event(kind="trained", first=0, stop=9),
    ]
    assert exposure_json(exposure.events)[2] == {"kind": "trained", "first": 0, "stop": 9}


def test_notes_are_read_back_and_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    exposure = Exposure()
    exposure.trained(0, 9)
    exposure.scored(9, 12, fitted_to=9)
    exposure.scored(12, 14)
    (tmp_path / "exposure.json").write_text(json.dumps(exposure_json(exposure.events)))
    assert read_exposure(tmp_path / "exposure.json") == exposure.events
    assert read_exposure(tmp_path / "nothing.json") == []
