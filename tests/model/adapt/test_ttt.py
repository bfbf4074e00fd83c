from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.adapt.adam import AdamRule
from model.adapt.lora import DocumentLora
from model.adapt.muon_ttt import MuonRule
from model.adapt.prequant import Prequant
from model.adapt.sgd import SgdRule
from model.adapt.ttt import Ttt
from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.exposure import Event
from model.score.scorer import Scorer
from model.score.sliding import Sliding
from model.score.slot import Slot
from model.score.stream import Stream
from model.score.windows import WindowConfig

NetFactory = Callable[..., GPT]
WINDOWS = WindowConfig(seq_len=8, stride=3, batch_seqs=4)
TTT = Ttt(lr=0.05, epochs=2, chunk_tokens=20, batch_seqs=2)
"""Chunks of 20 targets: windows straddle their ends, and 4 targets of each are no whole sequence."""


def some_stream(targets: int, seed: int = 0) -> Stream:
    return Stream(tokens=np.random.default_rng(seed).integers(0, 40, targets + 1).astype(np.uint16))


def tally_of(net: GPT, scorer: Scorer, stream: Stream, windows: WindowConfig = WINDOWS) -> Tally:
    tally = Tally(stream, np.ones(stream.targets, dtype=np.int64), Gang())
    scorer.score_stream(net, stream, windows, tally, Gang())
    return tally


def weights_of(net: GPT) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in net.state_dict().items()}


def changed(before: dict[str, torch.Tensor], net: GPT) -> set[str]:
    return {name for name, weight in net.state_dict().items() if not torch.equal(weight, before[name])}


def nats_at(net: GPT, tokens: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The loss of inputs [start, stop), as one window from ``start``."""
    with torch.no_grad():
        logits = net.logits(net.hidden(tokens[None, start:stop]))[0]
    return F.cross_entropy(logits, tokens[start + 1 : stop + 1], reduction="none").double()


def reference_pass(net: GPT, stream: Stream, T: int, S: int, config: Ttt) -> torch.Tensor:
    """SGD-TTT with all its loops written out: windows one by one, sequences one by one; nats of every target."""
    tokens, n, K = torch.from_numpy(stream.tokens.astype(np.int64)), stream.targets, config.chunk_tokens
    starts = [0, *range(S, n - T + S, S)]
    scored = [0 if start == 0 else start + T - S for start in starts]
    chunks = math.ceil(n / K)
    nats = torch.full((n,), math.nan, dtype=torch.float64)
    parameters = list(net.parameters())
    buffers = [torch.zeros_like(p) for p in parameters]
    assert isinstance(config.rule, SgdRule)
    for c in range(chunks):
        for start, first in zip(starts, scored, strict=True):
            if c * K <= first < (c + 1) * K:
                stop = min(start + T, n)
                nats[first:stop] = nats_at(net, tokens, start, stop)[first - start :]
        if c == chunks - 1:
            break
        rate = config.lr * (1 + math.cos(math.pi * c / (chunks - 1))) / 2
        sequences = list(range(c * K, (c + 1) * K - T + 1, T))
        for _ in range(config.epochs):
            for i in range(0, len(sequences), config.batch_seqs):
                batch = sequences[i : i + config.batch_seqs]
                for p in parameters:
                    p.grad = None
                for start in batch:
                    logits = net.logits(net.hidden(tokens[None, start : start + T]))[0]
                    (F.cross_entropy(logits, tokens[start + 1 : start + T + 1]) / len(batch)).backward()
                norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))
                for p, buffer in zip(parameters, buffers, strict=True):
                    assert p.grad is not None
                    buffer.mul_(config.rule.momentum).add_(p.grad * min(1.0, config.grad_clip / norm))
                    with torch.no_grad():
                        p -= rate * buffer
    return nats


@pytest.mark.parametrize("micro_seqs", [1, 32])
@pytest.mark.parametrize(
    ("targets", "config"),
    [
        (90, TTT),
        (80, replace(TTT, chunk_tokens=16, epochs=1)),
        (61, replace(TTT, chunk_tokens=30, batch_seqs=1, rule=SgdRule(momentum=0.0), grad_clip=0.5)),
        (21, replace(TTT, batch_seqs=99)),
        (7, TTT),
    ],
    ids=["tails", "whole-chunks", "no-momentum", "last-chunk-of-one", "shorter-than-a-window"],
)
def test_a_pass_equals_all_its_loops_written_out(
    random_net: NetFactory, targets: int, config: Ttt, micro_seqs: int
) -> None:
    stream = some_stream(targets)
    found = tally_of(random_net(), replace(config, micro_seqs=micro_seqs), stream)
    expected = reference_pass(random_net(), stream, 8, 3, config)
    assert (found.times == 1).all()
    torch.testing.assert_close(found.nats, expected, atol=5e-5, rtol=0)


def flips(net: GPT, scorer: Scorer, stream: Stream, positions: range) -> dict[int, torch.Tensor]:
    """For each token position p, the change of every score when token p is another; score i is of token i + 1."""
    before = tally_of(net, scorer, stream).nats
    found = {}
    for position in positions:
        tokens = stream.tokens.copy()
        tokens[position] = (int(tokens[position]) + 7) % 40
        found[position] = (tally_of(net, scorer, Stream(tokens=tokens)).nats - before).abs()
    return found


@pytest.mark.parametrize(
    "config",
    [TTT, replace(TTT, rule=MuonRule()), replace(TTT, rule=AdamRule(), score_with=Slot(steps=2, lr=0.05))],
    ids=["sgd", "muon", "adamw-and-slot"],
)
def test_no_score_depends_on_its_own_target_being_learned_or_on_later_tokens(
    random_net: NetFactory, config: Ttt
) -> None:
    net, stream = random_net(), some_stream(47)
    for position, change in flips(net, config, stream, range(1, 48)).items():
        assert (change[: position - 1] < 1e-9).all(), position
        assert change[position - 1] != 0


def test_what_was_scored_and_learned_from_does_move_the_scores_of_the_next_chunk(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(59)
    by_ttt, by_sliding = (flips(net, scorer, stream, range(3, 4))[3] for scorer in (TTT, Sliding()))
    assert by_sliding[23:].max() == 0, "token 3 is in no window from here on"
    assert by_ttt[23:].min() > 0


def test_two_epochs_that_learn_from_a_chunk_before_it_is_scored_would_be_found(random_net: NetFactory) -> None:
    """The flip test's own test: a pass over weights that were kept from an earlier one leaks."""
    net, stream = random_net(), some_stream(47)

    class Twice:
        def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
            state = weights_of(net)
            spent = Tally(stream, tally.bytes_per_target, gang)
            replace(TTT, keep_weights=True).score_stream(net, stream, windows, spent, gang)
            Sliding().score_stream(net, stream, windows, tally, gang)
            net.load_state_dict(state)

    changes = flips(net, Twice(), stream, range(10, 11))
    assert float(changes[10][:9].max()) > 1e-4


@pytest.mark.parametrize("scorer", [Sliding(), Slot(steps=3, lr=0.05)], ids=["sliding", "slot"])
def test_no_epochs_is_the_scorer_inside_exactly(random_net: NetFactory, scorer: Scorer) -> None:
    net, stream = random_net(), some_stream(90)
    found = tally_of(net, replace(TTT, epochs=0, score_with=scorer), stream)
    assert torch.equal(found.nats, tally_of(net, scorer, stream).nats)
    assert all(event.kind == "scored" for event in found.exposure.events)


def test_a_single_chunk_learns_nothing(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(20)
    assert torch.equal(tally_of(net, TTT, stream).nats, tally_of(net, Sliding(), stream).nats)


def test_the_slot_inside_is_fitted_on_the_weights_of_its_chunk(random_net: NetFactory) -> None:
    """Scored in chunks by hand: SLOT on the windows of chunk 1 with what a pass over chunk 0 alone leaves."""
    slot, stream = Slot(steps=3, lr=0.05), some_stream(40)
    found = tally_of(random_net(), replace(TTT, score_with=slot), stream)
    net = random_net()
    tally_of(net, replace(TTT, keep_weights=True), stream)  # two chunks: only the first is trained on
    expected = Tally(stream, np.ones(40, dtype=np.int64), Gang())
    slot.score_stream(net, stream, WINDOWS.part(20, 40), expected, Gang())
    late = expected.times > 0
    assert late.nonzero().flatten().tolist() == list(range(20, 40))
    assert torch.equal(found.nats[late], expected.nats[late])


def test_the_weights_are_as_they_were_unless_they_are_to_be_kept(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(90)
    before = weights_of(net)
    tally_of(net, TTT, stream)
    assert changed(before, net) == set()
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    tally_of(net, replace(TTT, keep_weights=True), stream)
    assert changed(before, net) == set(before)


@pytest.mark.parametrize(
    "rule", [SgdRule(), MuonRule(), AdamRule(weight_decay=0.5)], ids=["sgd", "muon", "adamw-with-decay"]
)
@pytest.mark.parametrize("freeze_blocks", [0, 1, 2])
def test_frozen_blocks_get_no_gradient_and_do_not_move_and_all_others_do(
    random_net: NetFactory, rule: Any, freeze_blocks: int
) -> None:
    net, stream = random_net(layers=3), some_stream(90)
    before = weights_of(net)
    gradients: set[str] = set()
    for name, parameter in net.named_parameters():
        parameter.register_hook(lambda gradient, name=name: gradients.add(name))  # type: ignore[misc]
    tally_of(net, replace(TTT, rule=rule, freeze_blocks=freeze_blocks, keep_weights=True), stream)
    frozen = {name for name in before if name.startswith(tuple(f"blocks.{i}." for i in range(freeze_blocks)))}
    frozen |= {"embedding"} if freeze_blocks else set()
    assert changed(before, net) == gradients == set(before) - frozen
    assert all(p.requires_grad for p in net.parameters())


def test_what_was_scored_and_what_was_learned_is_noted_in_order(random_net: NetFactory) -> None:
    """Windows 0:8 8:11 11:14 14:17 17:20 20:23 ...; sequences 0:8 8:16, then 20:28 28:36."""
    tally = tally_of(random_net(), replace(TTT, chunk_tokens=19), some_stream(45))
    assert tally.exposure.events == [
        Event(kind="scored", first=0, stop=20),  # the window of 17:20 began in chunk 0
        Event(kind="trained", first=0, stop=16),
        Event(kind="scored", first=20, stop=38),
        Event(kind="trained", first=19, stop=35),
        Event(kind="scored", first=38, stop=45),
    ]
    assert tally.exposure.exposed == 0


def test_scoring_again_with_the_weights_that_were_kept_is_exposed(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream(60)
    tally = Tally(stream, np.ones(60, dtype=np.int64), Gang())
    replace(TTT, keep_weights=True).score_stream(net, stream, WINDOWS, tally, Gang())
    assert tally.exposure.exposed == 0
    Sliding().score_stream(net, stream, WINDOWS, tally, Gang())
    assert tally.exposure.exposed == 36, "targets 0 to 35 were trained on"


def test_learning_from_a_repetitive_stream_lowers_its_loss(random_net: NetFactory) -> None:
    stream = Stream(tokens=np.tile(np.arange(10, dtype=np.uint16), 40)[:301])
    losses = [float(tally_of(random_net(), s, stream).nats[150:].mean()) for s in (Sliding(), replace(TTT, epochs=4))]
    assert losses[1] < 0.7 * losses[0]


def test_some_twenty_chunks_are_logged(random_net: NetFactory, capsys: pytest.CaptureFixture[str]) -> None:
    tally_of(random_net(), replace(TTT, chunk_tokens=8, epochs=1), some_stream(8 * 62))
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"ttt_chunk:(\d+)/62 lr:(\d\.\d{6}) train_loss:(\d+\.\d{4})", line) for line in lines]
    assert [int(line[1]) for line in found if line] == list(range(4, 62, 4))
    rates = [float(line[2]) for line in found if line]
    assert rates == pytest.approx([0.025 * (1 + math.cos(math.pi * c / 61)) for c in range(3, 61, 4)], abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_pass_naming_chunk_and_epoch_and_restores_the_weights(
    random_net: NetFactory, value: float
) -> None:
    net, honest, calls = random_net(), GPT.loss, []

    def failing(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return honest(net, inputs, targets) * (value if len(calls) == 4 else 1.0)  # one step an epoch, two a chunk

    net.loss = failing  # type: ignore[method-assign]
    before = weights_of(net)
    with pytest.raises(FloatingPointError, match=r"chunk 2 of 5, epoch 2"):
        tally_of(net, TTT, some_stream(90))
    assert changed(before, net) == set()
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.0},
        {"epochs": -1},
        {"chunk_tokens": 0},
        {"batch_seqs": 0},
        {"micro_seqs": -3},
        {"freeze_blocks": -1},
        {"grad_clip": -0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"score\.ttt\.{name} must be .*got {value}"):
        Ttt(**change)


def test_a_chunk_without_room_for_a_sequence_is_refused_with_both_lengths(random_net: NetFactory) -> None:
    with pytest.raises(ValueError, match=r"score\.ttt\.chunk_tokens must be score\.windows\.seq_len=8 or more, got 7"):
        tally_of(random_net(), replace(TTT, chunk_tokens=7), some_stream(40))


def test_freezing_everything_is_refused_with_the_number_of_blocks(random_net: NetFactory) -> None:
    with pytest.raises(ValueError, match=r"score\.ttt\.freeze_blocks must be below net\.layers=2, got 2"):
        tally_of(random_net(), replace(TTT, freeze_blocks=2), some_stream(90))


def test_a_scorer_that_does_not_keep_to_the_windows_of_a_chunk_is_refused(random_net: NetFactory) -> None:
    stream = some_stream(200)
    tally = Tally(stream, np.ones(200, dtype=np.int64), Gang())
    ttt = Ttt(chunk_tokens=64, score_with=DocumentLora(chunk_tokens=16))
    with pytest.raises(ValueError, match=r"score_with=DocumentLora scored .* it must score the windows it is given"):
        ttt.score_stream(random_net(), stream, WindowConfig(seq_len=16, stride=8), tally, Gang())


@pytest.mark.parametrize(
    "config", [lambda x: Ttt(lr=x), lambda x: Ttt(grad_clip=x), lambda x: DocumentLora(lr=x), lambda x: Prequant(lr=x)]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_a_knob_that_is_no_number_is_refused_by_its_path(config: Callable[[float], object], bad: float) -> None:
    with pytest.raises(ValueError, match=r"(score\.ttt|adapt\.prequant)\.\w+ must be a finite number"):
        config(bad)
