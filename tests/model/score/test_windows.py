from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.gang import Gang
from model.score.stream import Stream
from model.score.windows import Window, WindowConfig

plans = st.integers(1, 20).flatmap(
    lambda seq_len: st.tuples(
        st.builds(WindowConfig, seq_len=st.just(seq_len), stride=st.integers(1, seq_len), batch_seqs=st.integers(1, 6)),
        st.integers(1, 150),
    )
)


@settings(max_examples=100)
@given(plan=plans, world=st.integers(1, 5))
def test_every_target_is_scored_exactly_once_whatever_the_shapes_and_the_world(
    plan: tuple[WindowConfig, int], world: int
) -> None:
    config, targets = plan
    times = [0] * targets
    for rank in range(world):
        for batch in config.batches(targets, Gang(rank=rank, world=world)):
            for window in batch:
                for position in range(window.scored, window.stop):
                    times[position] += 1
    assert times == [1] * targets


@settings(max_examples=100)
@given(plans)
def test_windows_start_a_stride_apart_and_every_target_has_the_context_it_is_due(
    plan: tuple[WindowConfig, int],
) -> None:
    config, targets = plan
    for index, window in enumerate(config.plan(targets)):
        assert window.start == index * config.stride
        assert window.start <= window.scored < window.stop <= targets
        assert window.stop - window.start <= config.seq_len
        assert window.stop - window.start == config.seq_len or window.stop == targets
        assert window.context == window.scored - window.start == (config.seq_len - config.stride if index else 0)


@settings(max_examples=100)
@given(plan=plans, chunk=st.integers(1, 60))
def test_parts_by_first_scored_position_are_all_windows_each_once(plan: tuple[WindowConfig, int], chunk: int) -> None:
    config, targets = plan
    parts = [config.part(first, first + chunk).plan(targets) for first in range(0, targets, chunk)]
    assert parts == [
        [window for window in config.plan(targets) if window.scored // chunk == number] for number in range(len(parts))
    ]
    assert sum(map(len, parts)) == len(config.plan(targets))


@given(plan=plans, world=st.integers(1, 5))
def test_batches_hold_one_shape_and_are_the_same_for_every_world(plan: tuple[WindowConfig, int], world: int) -> None:
    config, targets = plan
    whole = list(config.batches(targets, Gang()))
    for batch in whole:
        assert 1 <= len(batch) <= config.batch_seqs
        assert len({(window.stop - window.start, window.context) for window in batch}) == 1
    parts = [list(config.batches(targets, Gang(rank=rank, world=world))) for rank in range(world)]
    assert [parts[i % world][i // world] for i in range(len(whole))] == whole
    assert sum(map(len, parts)) == len(whole)


def test_a_plan_written_out() -> None:
    assert WindowConfig(seq_len=8, stride=3).plan(16) == [
        Window(start=0, scored=0, stop=8),
        Window(start=3, scored=8, stop=11),
        Window(start=6, scored=11, stop=14),
        Window(start=9, scored=14, stop=16),
    ]


def test_the_field_s_validation_split_takes_its_number_of_windows() -> None:
    """62,021,632 targets at T 2048, S 64: 969,088 windows in the field's scripts, 31 of them only re-score the tail."""
    targets = 62_021_632
    assert 1 + (targets - 2048) // 64 == 969_088 - 31
    small = 2048 + 64 * 100
    assert len(WindowConfig().plan(small)) == 1 + (small - 2048) // 64


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_leaves_tokens_unscored_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride must be 1 to seq_len=8, got {stride}"):
        WindowConfig(seq_len=8, stride=stride)


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_stream_with_nothing_to_predict_is_refused(tokens: int) -> None:
    with pytest.raises(ValueError, match=f"has {tokens} tokens, so there is none to predict"):
        Stream(tokens=np.zeros(tokens, dtype=np.uint16))


def test_an_empty_batch_or_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_seqs must be 1 or more, got 0"):
        WindowConfig(batch_seqs=0)
    with pytest.raises(ValueError, match="no token to predict"):
        WindowConfig().plan(0)
