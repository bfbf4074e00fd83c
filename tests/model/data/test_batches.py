from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.batches import Batches

shapes = st.tuples(st.integers(1, 7), st.integers(1, 3).map(lambda n: 4 * n), st.integers(0, 60), st.integers(0, 9))


def stream(length: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 1000, length).astype(np.uint16)


@given(shapes)
def test_a_batch_is_the_next_rows_of_the_stream_wrapping_at_its_end(shape: tuple[int, int, int, int]) -> None:
    seq_len, batch_seqs, extra, step = shape
    tokens = stream(seq_len + 1 + extra)
    inputs, targets = Batches(tokens=tokens, seq_len=seq_len, batch_seqs=batch_seqs)(step)
    assert inputs.dtype == targets.dtype == torch.int64
    whole_rows = (seq_len + extra) // seq_len
    for i in range(batch_seqs):
        row = (step * batch_seqs + i) % whole_rows
        expected = [int(tokens[row * seq_len + t]) for t in range(seq_len + 1)]
        assert inputs[i].tolist() == expected[:-1]
        assert targets[i].tolist() == expected[1:]


@given(shapes, st.sampled_from([2, 4]))
def test_the_global_batch_is_the_ranks_batches_interleaved(shape: tuple[int, int, int, int], world: int) -> None:
    seq_len, batch_seqs, extra, step = shape
    tokens = stream(seq_len + 1 + extra)
    whole = Batches(tokens=tokens, seq_len=seq_len, batch_seqs=batch_seqs)(step)
    for half in (0, 1):
        parts = [
            Batches(tokens=tokens, seq_len=seq_len, batch_seqs=batch_seqs, rank=rank, world=world)(step)[half]
            for rank in range(world)
        ]
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole[half])


def test_a_batch_is_a_pure_function_of_the_step() -> None:
    batches = Batches(tokens=stream(100), seq_len=8, batch_seqs=4)
    first = [batches(step) for step in range(6)]
    for step in (3, 0, 5, 3):
        assert torch.equal(batches(step)[0], first[step][0])
        assert torch.equal(batches(step)[1], first[step][1])


def test_one_pass_of_the_stream_shows_every_target_once() -> None:
    tokens = np.arange(8 * 6 + 1, dtype=np.uint16)
    batches = Batches(tokens=tokens, seq_len=8, batch_seqs=2)
    seen = torch.cat([batches(step)[1].flatten() for step in range(3)])
    assert seen.tolist() == list(range(1, 49))


def test_a_stream_shorter_than_a_row_is_refused_with_both_lengths() -> None:
    assert Batches(tokens=stream(9), seq_len=8, batch_seqs=1).rows == 1
    with pytest.raises(ValueError, match=r"8 training tokens .* 8 \+ 1"):
        Batches(tokens=stream(8), seq_len=8, batch_seqs=1)


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="6 sequences does not divide over 4 ranks"):
        Batches(tokens=stream(100), seq_len=8, batch_seqs=6, world=4)
