from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.batches import Batches
from model.data.prefetch import prefetched
from model.data.shards import ShardStream

CPU = torch.device("cpu")
TOKENS = np.random.default_rng(3).integers(0, 1000, 700).astype(np.uint16)
BATCHES = Batches(tokens=TOKENS, seq_len=8, batch_seqs=4, order="shuffled", seed=9)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@given(st.lists(st.integers(0, 40), max_size=30))
def test_prefetching_gives_what_is_asked_for_in_any_order(steps: list[int]) -> None:
    """A warm-up asks again from 0; a run that goes on begins anywhere."""
    with prefetched(BATCHES, CPU) as batch_at:
        for step in [*steps, 0, 1, 2, 3, 1]:
            for found, expected in zip(batch_at(step), BATCHES(step), strict=True):
                assert torch.equal(found, expected)
    assert not threads()


def test_the_next_step_is_read_before_it_is_asked_for() -> None:
    read: list[int] = []
    told = threading.Event()

    class Noting(ShardStream):
        def __getitem__(self, span: slice) -> np.ndarray:
            read.append(span.start)
            if span.start == 8:
                told.set()
            return super().__getitem__(span)

    stream = Noting({Path("a.bin"): TOKENS}, 1000)
    with prefetched(Batches(tokens=stream, seq_len=8, batch_seqs=1), CPU) as batch_at:
        batch_at(0)
        assert told.wait(60), "row 1 was never read"
    assert read[0] == 0


def test_what_goes_wrong_in_the_thread_is_raised_where_its_batch_is_asked_for() -> None:
    bad = TOKENS.copy()
    bad[20] = 5000
    stream = ShardStream({Path("good.bin"): TOKENS[:9], Path("bad.bin"): bad[9:]}, 1000)
    with prefetched(Batches(tokens=stream, seq_len=8, batch_seqs=1), CPU) as batch_at:
        batch_at(0)
        batch_at(1)
        with pytest.raises(ValueError, match=r"bad\.bin: token 5000 is outside the tokenizer's 1000"):
            batch_at(2)
    assert not threads()


def test_no_thread_is_left_when_the_loop_fails() -> None:
    def loop() -> None:
        with prefetched(BATCHES, CPU) as batch_at:
            batch_at(0)
            assert len(threads()) == 1
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        loop()
    assert not threads()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_come_to_a_gpu_as_they_are() -> None:
    with prefetched(BATCHES, torch.device("cuda", 0)) as batch_at:
        for step in (0, 1, 2, 0):
            for found, expected in zip(batch_at(step), BATCHES(step), strict=True):
                assert found.is_cuda
                assert torch.equal(found.cpu(), expected)
