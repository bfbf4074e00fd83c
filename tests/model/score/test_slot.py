from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.sliding import Sliding
from model.score.slot import Slot, fit_slot, slot_log_probs
from model.score.stream import Stream
from model.score.windows import WindowConfig

NetFactory = Callable[..., GPT]
Side = Literal["context", "scored"]
WINDOWS = WindowConfig(seq_len=16, stride=4, batch_seqs=5)


def some_stream(targets: int, seed: int = 0) -> Stream:
    return Stream(tokens=np.random.default_rng(seed).integers(0, 40, targets + 1).astype(np.uint16))


def nats_of(log_probs_BSV: torch.Tensor, targets_BS: torch.Tensor) -> torch.Tensor:
    return -log_probs_BSV.gather(2, targets_BS[:, :, None]).squeeze(2)


def tally_of(
    net: GPT, scorer: Slot | Sliding, stream: Stream, windows: WindowConfig, gang: Gang | None = None
) -> Tally:
    tally = Tally(stream, np.ones(stream.targets, dtype=np.int64), gang or Gang())
    scorer.score_stream(net, stream, windows, tally, gang or Gang())
    return tally


def autograd_slot(
    hidden: torch.Tensor, targets: torch.Tensor, loss_rows: slice, head: torch.Tensor, cap: float, config: Slot
) -> torch.Tensor:
    """SLOT as the field writes it: full logits, a mask, autograd and torch's AdamW; the loss (B, T) of every row.

    In float64: in float32 AdamW blows the noise of gradients near zero up to 5e-5 nats in one of some thousand cases.
    """
    hidden, head = hidden.double(), head.double()
    B, T, D = hidden.shape
    shift = torch.zeros(B, 1, D, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(B, 1, len(head), dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(B, T, dtype=torch.float64)
    mask[:, loss_rows] = 1
    adam = torch.optim.AdamW(
        [shift, bias],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )

    def nats() -> torch.Tensor:
        logits = cap * torch.tanh(((hidden + shift) @ head.T + bias) / cap)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(B, T)

    for t in range(config.steps):
        for group in adam.param_groups:
            group["lr"] = config.lr_min + 0.5 * (config.lr - config.lr_min) * (1 + math.cos(math.pi * t / config.steps))
        adam.zero_grad()
        ((nats() * mask).sum() / mask.sum()).backward()
        adam.step()
    return nats().detach()


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 8)),
    side=st.sampled_from(["context", "scored"]),
    knobs=st.fixed_dictionaries(
        {
            "steps": st.integers(0, 20),
            "lr": st.sampled_from([0.003, 0.008, 0.012]),
            "lr_min": st.sampled_from([0.0, 0.0008]),
            "beta1": st.sampled_from([0.9, 0.3]),
            "beta2": st.sampled_from([0.999, 0.9]),
            "weight_decay": st.sampled_from([1e-8, 0.1]),
        }
    ),
    cap=st.sampled_from([5.0, 30.0]),
    seed=st.integers(0, 999),
)
def test_the_written_out_gradient_equals_autograd_with_torch_s_adamw(
    shape: tuple[int, int, int], side: Side, knobs: dict[str, Any], cap: float, seed: int
) -> None:
    batch, context, scored = shape
    generator = torch.Generator().manual_seed(seed)
    hidden = F.rms_norm(torch.randn(batch, context + scored, 16, generator=generator), (16,))
    targets = torch.randint(0, 50, (batch, context + scored), generator=generator)
    head = torch.randn(50, 16, generator=generator)
    config = Slot(loss_on=side, **knobs)
    rows = slice(context, None) if side == "scored" else slice(0, context)
    shift, bias = fit_slot(hidden[:, rows], targets[:, rows], head, cap, config)
    found = nats_of(slot_log_probs(hidden[:, context:], head, cap, shift, bias), targets[:, context:])
    expected = autograd_slot(hidden, targets, rows, head, cap, config)[:, context:]
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("side", ["context", "scored"])
@pytest.mark.parametrize("batch_seqs", [1, 3, 32])
def test_a_scored_stream_equals_autograd_window_batch_by_window_batch(
    random_net: NetFactory, side: Side, batch_seqs: int
) -> None:
    net, stream, T, S = random_net(), some_stream(47), 16, 4
    config = Slot(loss_on=side, steps=8, lr=0.02)
    found = tally_of(net, config, stream, WindowConfig(seq_len=T, stride=S, batch_seqs=batch_seqs))
    starts = list(range(0, 47 - T + S, S))  # 0, 4 ... 32; the last window is one short
    full = [start for start in starts[1:] if start + T <= 47]
    batches = [[0], *(full[i : i + batch_seqs] for i in range(0, len(full), batch_seqs)), [starts[-1]]]
    expected = torch.full((47,), torch.nan, dtype=torch.float64)
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    for batch in batches:
        stop = min(batch[0] + T, 47) - batch[0]
        rows = torch.stack([tokens[start : start + stop + 1] for start in batch])
        with torch.no_grad():
            hidden = net.hidden(rows[:, :-1])
        context = 0 if batch == [0] else T - S
        fitted = slice(context, None) if side == "scored" else slice(0, context)
        steps = config if side == "scored" or context else Slot(steps=0)
        nats = autograd_slot(hidden, rows[:, 1:], fitted, net.embedding.detach(), net.logit_cap, steps)
        for start, row in zip(batch, nats, strict=True):
            expected[start + context : start + stop] = row[context:]
    assert (found.times == 1).all()
    torch.testing.assert_close(found.nats, expected, atol=1e-5, rtol=0)


def flip(stream: Stream, position: int) -> Stream:
    tokens = stream.tokens.copy()
    tokens[position] = (int(tokens[position]) + 7) % 40
    return Stream(tokens=tokens)


def largest_changes_before(net: GPT, scorer: Slot | Sliding, stream: Stream) -> dict[int, float]:
    """For each changed token p: the largest change of the score of a token before it; score i is of token i + 1."""
    before = tally_of(net, scorer, stream, WINDOWS).nats
    changes = {}
    for position in range(2, len(stream.tokens)):
        after = tally_of(net, scorer, flip(stream, position), WINDOWS).nats
        assert after[position - 1] != before[position - 1]
        changes[position] = float((after - before)[: position - 1].abs().max())
    return changes


@pytest.mark.parametrize("scorer", [Sliding(), Slot(loss_on="context", steps=6, lr=0.05)], ids=["sliding", "context"])
def test_no_score_depends_on_later_tokens(random_net: NetFactory, scorer: Slot | Sliding) -> None:
    changes = largest_changes_before(random_net(), scorer, some_stream(45))
    assert max(changes.values()) < 1e-9


def test_the_same_flip_test_finds_the_leak_of_scored_slot(random_net: NetFactory) -> None:
    changes = largest_changes_before(random_net(), Slot(loss_on="scored", steps=6, lr=0.05), some_stream(45))
    leaking = [position for position, change in changes.items() if change > 1e-4]
    # A window scores its first token before any it could leak to: after window 0 that is every fourth.
    assert leaking == [position for position in changes if position <= 16 or position % 4 != 1]


def test_context_slot_does_use_what_was_scored_before(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(45)
    slot = tally_of(net, Slot(steps=6, lr=0.05), stream, WINDOWS).nats
    plain = tally_of(net, Sliding(), stream, WINDOWS).nats
    assert torch.equal(slot[:16], plain[:16])
    assert (slot[16:] - plain[16:]).abs().min() > 1e-6


@pytest.mark.parametrize("side", ["context", "scored"])
def test_no_steps_is_sliding(random_net: NetFactory, side: Side) -> None:
    net, stream = random_net(), some_stream(45)
    found = tally_of(net, Slot(loss_on=side, steps=0), stream, WINDOWS)
    assert torch.equal(found.nats, tally_of(net, Sliding(), stream, WINDOWS).nats)


@pytest.mark.parametrize("side", ["context", "scored"])
def test_two_ranks_give_exactly_the_tally_of_one(random_net: NetFactory, side: Side) -> None:
    net, stream = random_net(), some_stream(101)
    slot = Slot(loss_on=side, steps=4)
    alone = tally_of(net, slot, stream, WINDOWS)
    ranks = [tally_of(net, slot, stream, WINDOWS, Gang(rank=rank, world=2)) for rank in range(2)]
    assert torch.equal(ranks[0].nats + ranks[1].nats, alone.nats)
    assert torch.equal(ranks[0].times + ranks[1].times, alone.times)


def test_windows_of_a_batch_do_not_see_each_other_but_through_the_count_of_rows(random_net: NetFactory) -> None:
    """With an eps far below every gradient AdamW is scale-free, so the batch size no longer matters."""
    net, stream = random_net(), some_stream(45)
    scores = [
        tally_of(net, Slot(steps=3, eps=1e-30), stream, WindowConfig(seq_len=16, stride=4, batch_seqs=n)).nats
        for n in (1, 5)
    ]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-3, rtol=0)


def test_fitting_lowers_the_loss_of_the_rows_it_is_fitted_on() -> None:
    hidden = F.rms_norm(torch.randn(3, 10, 16), (16,))
    targets, head = torch.randint(0, 50, (3, 10)), torch.randn(50, 16)
    losses = []
    for steps in (0, 4, 16, 64):
        shift, bias = fit_slot(hidden, targets, head, 30.0, Slot(steps=steps, lr=0.02))
        losses.append(float(nats_of(slot_log_probs(hidden, head, 30.0, shift, bias), targets).mean()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("cap", [5.0, 30.0, 100.0])
@pytest.mark.parametrize("weight_scale", [1.0, 100.0])
def test_saturated_logits_stay_finite(weight_scale: float, cap: float) -> None:
    hidden = torch.randn(2, 6, 16) * weight_scale
    targets, head = torch.randint(0, 50, (2, 6)), torch.randn(50, 16) * weight_scale
    shift, bias = fit_slot(hidden, targets, head, cap, Slot())
    assert torch.isfinite(slot_log_probs(hidden, head, cap, shift, bias)).all()


def test_scoring_leaves_the_weights_as_they_were(random_net: NetFactory) -> None:
    net = random_net()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    tally_of(net, Slot(loss_on="scored", steps=3), some_stream(30), WINDOWS)
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"loss_on": "all"},
        {"steps": -1},
        {"lr": 0.0},
        {"lr_min": -0.1},
        {"eps": 0.0},
        {"weight_decay": -1.0},
        {"beta1": 1.0},
        {"beta2": -0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_knob_out_of_range_is_refused_with_its_value(change: dict[str, Any]) -> None:
    ((_, value),) = change.items()
    with pytest.raises(ValueError, match=f"score.slot.*{value}"):
        Slot(**change)
