from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.sliding import Sliding
from model.score.slot import Slot, score_together
from model.score.stream import Stream
from model.score.windows import WindowConfig

NetFactory = Callable[..., GPT]
Side = Literal["context", "scored"]
WINDOWS = WindowConfig(seq_len=16, stride=4, batch_seqs=5)


def some_stream(targets: int, seed: int = 0) -> Stream:
    return Stream(tokens=np.random.default_rng(seed).integers(0, 40, targets + 1).astype(np.uint16))


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


def test_slot_fits_the_head_that_the_network_has(random_net: NetFactory) -> None:
    """One of its own, and not the embedding."""
    net, stream = random_net(tie_embeddings=False), some_stream(47)
    config = Slot(loss_on="scored", steps=8, lr=0.02)
    found = tally_of(net, config, stream, WindowConfig(seq_len=64, stride=64)).nats
    rows = torch.from_numpy(stream.tokens.astype(np.int64))[None]
    with torch.no_grad():
        hidden = net.hidden(rows[:, :-1])
    assert net.head is not None
    nats = autograd_slot(hidden, rows[:, 1:], slice(0, None), net.head.weight.detach(), net.logit_cap, config)
    torch.testing.assert_close(found, nats[0].double(), atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("loss_on", ["context", "all"])
def test_parameters_shared_by_a_batch_leak_across_its_windows_also_from_context(
    random_net: NetFactory, loss_on: Any
) -> None:
    """#1306: the context of one window is what another one scores; with one window a batch nobody can see it."""
    shared = Slot(loss_on=loss_on, per="batch", bias=False, steps=6, lr=0.05)
    assert max(largest_changes_before(random_net(), shared, some_stream(45)).values()) > 1e-3
    tally = tally_of(random_net(), shared, some_stream(45), WINDOWS)
    assert tally.exposure.exposed > 0


def test_the_notes_say_what_the_flips_say(random_net: NetFactory) -> None:
    exposed = {
        loss_on: tally_of(random_net(), Slot(loss_on=loss_on, steps=1), some_stream(45), WINDOWS).exposure.exposed
        for loss_on in ("context", "scored", "all")
    }
    assert exposed == {"context": 0, "scored": 45, "all": 45}


def test_context_tokens_are_the_last_ones_before_the_scored(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(47)
    config = Slot(context_tokens=5, steps=8, lr=0.02)
    found = tally_of(net, config, stream, WindowConfig(seq_len=16, stride=4, batch_seqs=1))
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    for start in range(4, 32, 4):
        with torch.no_grad():
            hidden = net.hidden(tokens[None, start : start + 16])
        targets = tokens[None, start + 1 : start + 17]
        nats = autograd_slot(hidden, targets, slice(7, 12), net.embedding.detach(), net.logit_cap, config)
        torch.testing.assert_close(found.nats[start + 12 : start + 16], nats[0, 12:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["context", "scored", "all"])
def test_configurations_on_one_forward_give_the_same_bits_as_each_alone(random_net: NetFactory, side: Any) -> None:
    net, stream = random_net(), some_stream(75)
    slots = [Slot(loss_on=side, lr=lr, steps=steps) for lr in (0.004, 0.012) for steps in (0, 3, 6)]
    slots.append(Slot(loss_on=side, warm_start=0.85))
    tallies = [Tally(stream, np.ones(75, dtype=np.int64), Gang()) for _ in slots]
    score_together(slots, net, stream, WINDOWS, tallies, Gang())
    for slot, tally in zip(slots, tallies, strict=True):
        assert torch.equal(tally.nats, tally_of(net, slot, stream, WINDOWS).nats)


def test_configurations_that_need_other_rows_share_no_forward(random_net: NetFactory) -> None:
    stream = some_stream(45)
    slots = [Slot(), Slot(loss_on="scored")]
    tallies = [Tally(stream, np.ones(45, dtype=np.int64), Gang()) for _ in slots]
    with pytest.raises(ValueError, match=r"score\.slot: .*loss_on"):
        score_together(slots, random_net(), stream, WINDOWS, tallies, Gang())


@pytest.mark.parametrize("per", ["window", "batch"])
def test_a_warm_start_is_the_same_on_one_rank_and_two_and_stays_clean(random_net: NetFactory, per: Any) -> None:
    net, stream = random_net(), some_stream(200)
    windows = WindowConfig(seq_len=16, stride=4, batch_seqs=2)
    slot = Slot(warm_start=0.85, steps=4, lr=0.03, per=per)
    alone = tally_of(net, slot, stream, windows)
    ranks = [tally_of(net, slot, stream, windows, Gang(rank=rank, world=2)) for rank in range(2)]
    assert torch.equal(ranks[0].nats + ranks[1].nats, alone.nats)
    cold = tally_of(net, Slot(steps=4, lr=0.03, per=per), stream, windows)
    # The first eight batches have nothing to begin from, nor has the ninth: the first window, alone, had no fit.
    first = 16 + 8 * 2 * 4
    assert torch.equal(alone.nats[:first], cold.nats[:first])
    assert not torch.equal(alone.nats[first : first + 8], cold.nats[first : first + 8])
    if per == "window":
        changed = flip(stream, 120)
        assert torch.equal(tally_of(net, slot, changed, windows).nats[:119], alone.nats[:119])


def test_a_warm_start_on_three_ranks_is_refused(random_net: NetFactory) -> None:
    with pytest.raises(ValueError, match=r"warm_start needs 1, 2, 4 or 8 ranks.* got 3"):
        tally_of(random_net(), Slot(warm_start=0.85), some_stream(45), WINDOWS, Gang(rank=0, world=3))


@dataclass(frozen=True)
class TrainsOnAll:
    """Scores plainly, then leaves weights behind that have seen the stream."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        Sliding().score_stream(net, stream, windows, tally, gang)
        with torch.no_grad():
            net.embedding.mul_(1.1)
        tally.trained(0, stream.targets)


def test_slot_after_something_that_keeps_its_weights_is_marked(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(45)
    plain = tally_of(net, Slot(steps=2), stream, WINDOWS)
    after = tally_of(net, Slot(steps=2, after=TrainsOnAll()), stream, WINDOWS)
    assert (plain.exposure.exposed, after.exposure.exposed) == (0, 45)
    with torch.no_grad():
        net.embedding.div_(1.1)
    changed = random_net()
    with torch.no_grad():
        changed.embedding.mul_(1.1)
    assert torch.equal(after.nats, tally_of(changed, Slot(steps=2), stream, WINDOWS).nats)


@dataclass(frozen=True)
class Restores:
    """Changes the weights on its way and puts them back."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        before = net.embedding.detach().clone()
        TrainsOnAll().score_stream(net, stream, windows, tally, gang)
        with torch.no_grad():
            net.embedding.copy_(before)


def test_slot_after_something_that_restores_its_weights_is_slot_and_clean(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(45)
    plain = tally_of(net, Slot(steps=2), stream, WINDOWS)
    for first in (Restores(), Sliding()):
        after = tally_of(net, Slot(steps=2, after=first), stream, WINDOWS)
        assert torch.equal(after.nats, plain.nats)
        assert after.exposure.exposed == 0
        assert after.exposure.events == plain.exposure.events


def test_context_tokens_without_context_are_refused() -> None:
    with pytest.raises(ValueError, match=r"score\.slot\.context_tokens=5 has no say with .*'scored'"):
        Slot(loss_on="scored", context_tokens=5)


def test_windows_without_context_are_refused_for_context_slot() -> None:
    whole = WindowConfig(seq_len=16, stride=16)
    with pytest.raises(ValueError, match=r"score\.windows\.stride=16 is the whole window"):
        Slot().check(2, whole)
    Slot(loss_on="scored").check(2, whole)


@pytest.mark.parametrize("name", ["lr", "lr_min", "weight_decay", "clamp", "warm_start", "eps"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_a_knob_that_is_no_number_is_refused_by_its_path(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"score\.slot\.{name} must be a finite number"):
        Slot(**{name: bad})


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


def test_scoring_leaves_the_weights_as_they_were(random_net: NetFactory) -> None:
    net = random_net()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    tally_of(net, Slot(loss_on="scored", steps=3), some_stream(30), WINDOWS)
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score\.slot: .*shift=False and bias=False"):
        Slot(shift=False, bias=False)


@pytest.mark.parametrize(
    "change",
    [
        {"loss_on": "both"},
        {"steps": -1},
        {"lr": 0.0},
        {"lr_min": -0.1},
        {"eps": 0.0},
        {"weight_decay": -1.0},
        {"beta1": 1.0},
        {"beta2": -0.5},
        {"context_tokens": -3},
        {"per": "token"},
        {"optimiser": "sgd"},
        {"schedule": "linear"},
        {"loss_scale": "token"},
        {"history": 0},
        {"clamp": -1.5},
        {"warm_start": -0.25},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_knob_out_of_range_is_refused_with_its_value(change: dict[str, Any]) -> None:
    ((_, value),) = change.items()
    with pytest.raises(ValueError, match=f"score.slot.*{value}"):
        Slot(**change)
