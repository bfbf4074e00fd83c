from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.gang import Gang
from model.score.bpb import Tally

losses = st.lists(st.floats(0, 20, width=32), min_size=1, max_size=40)


@given(nats=losses, data=st.data())
def test_bpb_is_nats_over_ln2_over_bytes_and_the_loss_is_the_mean_a_token(
    nats: list[float], data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=len(nats), max_size=len(nats)))
    tally = Tally(len(nats))
    tally.add(0, torch.tensor(nats))
    score = tally.score(np.array(sizes), Gang())
    assert score.val_loss_nats == pytest.approx(math.fsum(nats) / len(nats), rel=1e-12)
    assert score.val_bpb == pytest.approx(math.fsum(nats) / math.log(2) / sum(sizes), rel=1e-12)
    assert (score.tokens, score.text_bytes, score.scored_twice) == (len(nats), sum(sizes), 0)


@given(st.lists(losses, min_size=1, max_size=6), st.randoms())
def test_the_order_of_writing_does_not_change_a_bit(pieces: list[list[float]], random: np.random.Generator) -> None:
    starts = np.cumsum([0, *map(len, pieces)]).tolist()
    order = list(range(len(pieces)))
    scores = []
    for _ in range(2):
        tally = Tally(starts[-1])
        for i in order:
            tally.add(starts[i], torch.tensor(pieces[i]))
        scores.append(tally.score(np.ones(starts[-1], dtype=np.int64), Gang()))
        random.shuffle(order)
    assert scores[0] == scores[1]


def test_a_uniform_guess_over_bytes_costs_eight_bits_a_byte() -> None:
    tally = Tally(10)
    tally.add(0, torch.full((10,), math.log(256), dtype=torch.float64))
    assert tally.score(np.ones(10, dtype=np.int64), Gang()).val_bpb == pytest.approx(8.0)


def test_a_token_scored_twice_counts_with_its_mean_and_is_reported() -> None:
    tally = Tally(3)
    tally.add(0, torch.tensor([1.0, 2.0]))
    tally.add(1, torch.tensor([4.0, 6.0]))
    score = tally.score(np.array([1, 1, 1]), Gang())
    assert score.val_loss_nats == pytest.approx((1 + 3 + 6) / 3)
    assert score.scored_twice == 1


def test_tokens_that_were_never_scored_are_refused_with_their_number() -> None:
    tally = Tally(5)
    tally.add(1, torch.ones(2))
    with pytest.raises(ValueError, match="3 of 5 tokens were never scored"):
        tally.score(np.ones(5, dtype=np.int64), Gang())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(bad: float) -> None:
    tally = Tally(3)
    tally.add(0, torch.tensor([1.0, bad, bad]))
    with pytest.raises(ValueError, match="the loss of 2 tokens is not finite"):
        tally.score(np.ones(3, dtype=np.int64), Gang())
