from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.gang import Gang
from model.score.bpb import Tally
from model.score.stream import Stream

losses = st.lists(st.floats(0, 20, width=32), min_size=1, max_size=40)


def tally_over(targets: int, sizes: list[int] | None = None, told: list[str] | None = None) -> Tally:
    """A tally over a stream of token 1, whose targets have ``sizes`` bytes."""
    stream = Stream(tokens=np.ones(targets + 1, dtype=np.uint16))
    tell = told.append if told is not None else None
    return Tally(stream, np.array(sizes or [1] * targets, dtype=np.int64), Gang(), tell)


def said(nats: list[float]) -> torch.Tensor:
    """Log-probabilities (1, S, 3) that give token 1 these losses."""
    rows = torch.full((1, len(nats), 3), -99.0, dtype=torch.float64)
    rows[0, :, 1] = -torch.tensor(nats, dtype=torch.float64)
    return rows


@given(nats=losses, data=st.data())
def test_bpb_is_nats_over_ln2_over_bytes_and_the_loss_is_the_mean_a_token(
    nats: list[float], data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=len(nats), max_size=len(nats)))
    tally = tally_over(len(nats), sizes)
    tally.add([0], said(nats))
    score = tally.score()
    assert score.val_loss_nats == pytest.approx(math.fsum(nats) / len(nats), rel=1e-12)
    assert score.val_bpb == pytest.approx(math.fsum(nats) / math.log(2) / sum(sizes), rel=1e-12)
    assert (score.tokens, score.text_bytes, score.scored_twice, score.exposed) == (len(nats), sum(sizes), 0, 0)


@given(st.lists(losses, min_size=1, max_size=6), st.randoms())
def test_the_order_of_writing_does_not_change_a_bit(pieces: list[list[float]], random: np.random.Generator) -> None:
    starts = np.cumsum([0, *map(len, pieces)]).tolist()
    order = list(range(len(pieces)))
    scores = []
    for _ in range(2):
        tally = tally_over(starts[-1])
        for i in order:
            tally.add([starts[i]], said(pieces[i]))
        scores.append(tally.score())
        random.shuffle(order)
    assert scores[0] == scores[1]


def test_windows_of_a_batch_are_looked_up_at_their_own_targets() -> None:
    stream = Stream(tokens=np.array([0, 2, 1, 0, 2, 1, 1], dtype=np.uint16))
    tally = Tally(stream, np.ones(6, dtype=np.int64), Gang())
    log_probs = torch.arange(18, dtype=torch.float64).view(3, 2, 3)
    tally.add([4, 0, 2], log_probs)
    # Targets are tokens 1 .. 6: window 0 predicts tokens 5 and 6 (1, 1), window 1 tokens 1 and 2 (2, 1), ...
    assert tally.nats.tolist() == [-8.0, -10.0, -12.0, -17.0, -1.0, -4.0]


def test_a_uniform_guess_over_bytes_costs_eight_bits_a_byte() -> None:
    tally = tally_over(10)
    tally.add([0], said([math.log(256)] * 10))
    assert tally.score().val_bpb == pytest.approx(8.0)


def test_a_token_scored_twice_counts_with_its_mean_and_is_reported() -> None:
    tally = tally_over(3)
    tally.add([0], said([1.0, 2.0]))
    tally.add([1], said([4.0, 6.0]))
    score = tally.score()
    assert score.val_loss_nats == pytest.approx((1 + 3 + 6) / 3)
    assert score.scored_twice == 1


def test_tokens_that_were_never_scored_are_refused_with_their_number() -> None:
    tally = tally_over(5)
    tally.add([1], said([1.0, 1.0]))
    with pytest.raises(ValueError, match="3 of 5 tokens were never scored"):
        tally.score()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(bad: float) -> None:
    tally = tally_over(3)
    tally.add([0], said([1.0, bad, bad]))
    with pytest.raises(ValueError, match="the loss of 2 tokens is not finite"):
        tally.score()


def test_the_running_score_is_told_ten_times_and_ends_with_the_score() -> None:
    told: list[str] = []
    nats = [0.1 * i for i in range(50)]
    tally = tally_over(50, told=told)
    for i in range(50):
        tally.add([i], said(nats[i : i + 1]))
    assert [line.split()[0] for line in told] == [f"scored:{10 * i}%" for i in range(1, 11)]
    half = sum(nats[:25]) / 25 / math.log(2)
    assert told[4].endswith(f"running_bpb:{half:.4f}")
    assert told[-1].endswith(f"running_bpb:{tally.score().val_bpb:.4f}")


def test_the_largest_deviation_of_a_sum_of_probabilities_from_one_is_reported() -> None:
    tally = tally_over(4)
    whole = torch.tensor([0.25, 0.5, 0.25]).log()
    tally.add([0], whole.expand(1, 2, 3))
    tally.add([2], torch.stack([whole, whole + math.log(1.25)])[None])
    assert tally.score().off_one == pytest.approx(0.25)
    honest = tally_over(2)
    honest.add([0], whole.expand(1, 2, 3))
    assert honest.score().off_one < 1e-6


def test_no_number_where_no_target_is_deviates_without_bound() -> None:
    tally = tally_over(1)
    tally.add([0], torch.tensor([[[math.nan, -1.0, -2.0]]]))
    assert tally.score().off_one == 1e9
