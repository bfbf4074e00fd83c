from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.batches import Batches
from model.data.orders import Order, rows_at

ORDERS: tuple[Order, ...] = ("sequential", "shuffled", "coprime")
orders = st.sampled_from(ORDERS)
seeds = st.integers(0, 2**63 - 1)


def rows_of(order: Order, first: int, count: int, rows: int, seed: int) -> list[int]:
    found: list[int] = rows_at(order, np.arange(first, first + count, dtype=np.uint64), rows, seed).tolist()
    return found


@given(orders, st.integers(1, 700), st.integers(0, 5), seeds)
def test_every_order_visits_every_row_once_an_epoch(order: Order, rows: int, epoch: int, seed: int) -> None:
    assert sorted(rows_of(order, epoch * rows, rows, rows, seed)) == list(range(rows))


@given(orders, st.integers(1, 50), st.integers(0, 200), st.integers(1, 120), seeds)
def test_a_row_depends_on_its_place_alone_not_on_what_is_asked_with_it(
    order: Order, rows: int, first: int, count: int, seed: int
) -> None:
    together = rows_of(order, first, count, rows, seed)
    assert together == [rows_of(order, place, 1, rows, seed)[0] for place in range(first, first + count)]


def test_the_sequential_order_is_the_stream_s_and_knows_no_seed() -> None:
    assert rows_of("sequential", 3, 9, 5, 1) == rows_of("sequential", 3, 9, 5, 2) == [3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("order", ["shuffled", "coprime"])
def test_another_seed_and_another_epoch_are_another_order(order: Order) -> None:
    asked = [rows_of(order, 1000 * epoch, 1000, 1000, seed) for seed in range(4) for epoch in range(3)]
    assert len(set(map(tuple, asked))) == 12


@given(st.integers(8, 5000), seeds)
def test_a_coprime_order_goes_by_one_stride_that_keeps_neighbours_apart(rows: int, seed: int) -> None:
    found = rows_of("coprime", 0, rows, rows, seed)
    (stride,) = {(b - a) % rows for a, b in itertools.pairwise(found)}
    assert math.gcd(stride, rows) == 1
    assert rows // 4 <= stride <= rows // 2 + 12, "the next coprime number is near"


def test_a_shuffle_leaves_no_trace_of_the_order() -> None:
    """Over many seeds a row comes to every place alike, and neighbours don't stay together."""
    rows, seeds = 16, 4000
    shuffles = np.array([rows_of("shuffled", 0, rows, rows, seed) for seed in range(seeds)])
    counts = np.stack([np.bincount(shuffles[:, place], minlength=rows) for place in range(rows)])
    chi_squared = float(((counts - seeds / rows) ** 2 / (seeds / rows)).sum())
    assert chi_squared < 1.5 * (rows - 1) ** 2, "225 degrees of freedom: sd 21"
    together = float((np.diff(shuffles, axis=1) == 1).mean())
    assert together == pytest.approx(1 / rows, abs=0.005)


def test_the_order_of_a_seed_stays_what_it_was() -> None:
    """A finished run must be repeatable with any later version; worked out in whole numbers from the definition."""
    assert rows_of("shuffled", 0, 10, 10, 42) == [1, 2, 8, 6, 4, 3, 0, 9, 7, 5]
    assert rows_of("coprime", 0, 10, 10, 42) == [5, 8, 1, 4, 7, 0, 3, 6, 9, 2]


@given(orders, st.sampled_from([1, 2, 4, 8]), st.integers(0, 30), seeds)
def test_ranks_share_the_global_batch_whatever_the_order(order: Order, world: int, step: int, seed: int) -> None:
    tokens = np.arange(5 * 37 + 1, dtype=np.uint16)

    def of(rank: int, world: int) -> Batches:
        return Batches(tokens=tokens, seq_len=5, batch_seqs=8, rank=rank, world=world, order=order, seed=seed)

    whole = of(0, 1)(step)
    parts = [of(rank, world)(step) for rank in range(world)]
    for half in (0, 1):
        assert torch.equal(torch.stack([part[half] for part in parts], dim=1).flatten(0, 1), whole[half])
    firsts = whole[0][:, 0].tolist()
    expected = rows_of(order, 8 * step, 8, 37, seed)
    assert firsts == [5 * row for row in expected]
    assert whole[1][:, -1].tolist() == [5 * row + 5 for row in expected]
