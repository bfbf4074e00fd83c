from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.adapt.lora import DocumentLora, document_spans
from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.stream import Stream
from model.score.windows import WindowConfig

NetFactory = Callable[..., GPT]
WINDOWS = WindowConfig(seq_len=8, stride=8, batch_seqs=2)
LORA = DocumentLora(rank=2, lr=0.05, chunk_tokens=3, steps=2)
LENGTHS = (3, 14, 1, 21, 6)
"""Tokens of each document, its BOS with them; the first begins without one."""


def some_stream(lengths: tuple[int, ...] = LENGTHS) -> Stream:
    dice = np.random.default_rng(0)
    documents = [[1, *dice.integers(2, 40, length - 1).tolist()] for length in lengths]
    documents[0][0] = 7
    return Stream(tokens=np.concatenate(documents).astype(np.uint16))


def tally_of(
    net: GPT, config: DocumentLora, stream: Stream, windows: WindowConfig = WINDOWS, gang: Gang | None = None
) -> Tally:
    tally = Tally(stream, np.ones(stream.targets, dtype=np.int64), gang or Gang())
    config.score_stream(net, stream, windows, tally, gang or Gang())
    return tally


def reference(net: GPT, stream: Stream, T: int, config: DocumentLora) -> torch.Tensor:
    """One document after the other, its adapters added into a copy of the weights; nats of every target."""
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    n, K = stream.targets, config.chunk_tokens
    begins = [0, *(p for p in range(1, n) if tokens[p] == 1)]
    nats = torch.full((n,), math.nan, dtype=torch.float64)
    names = [name for name, _ in net.named_parameters() if name.startswith("blocks.") and name.endswith(".weight")]
    for begin, end in zip(begins, [*begins[1:], n], strict=True):
        generator, low = torch.Generator().manual_seed(0), {}
        for name in names:
            O, I = net.get_parameter(name).shape  # noqa: E741
            down = torch.randn(config.rank, I, generator=generator) / math.sqrt(I)
            low[name] = (down.requires_grad_(), torch.zeros(O, config.rank, requires_grad=True))
        adam = torch.optim.AdamW([p for pair in low.values() for p in pair], lr=config.lr, weight_decay=0.0)

        def loss(start: int, first: int, stop: int, low: Any = low) -> torch.Tensor:
            """Of each of the targets [first, stop) with context from ``start``."""
            merged = {name: net.get_parameter(name).detach() + up @ down for name, (down, up) in low.items()}
            hidden = torch.func.functional_call(
                Whole(net), {f"net.{k}": v for k, v in merged.items()}, tokens[None, start:stop]
            )
            return F.cross_entropy(hidden[0, first - start :], tokens[first + 1 : stop + 1], reduction="none")

        for first in range(begin, end, K):
            stop = min(first + K, end)
            start = max(begin, first + K - T)
            with torch.no_grad():
                nats[first:stop] = loss(start, first, stop).double()
            for _ in range(config.steps if stop < end else 0):
                adam.zero_grad()
                loss(start, first, stop).mean().backward()
                adam.step()
    return nats


class Whole(torch.nn.Module):
    """All logits by a plain call, which ``functional_call`` needs."""

    def __init__(self, net: GPT) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.net.logits(self.net.hidden(ids))


@pytest.mark.parametrize("batch_seqs", [1, 2, 9])
@pytest.mark.parametrize("config", [LORA, replace(LORA, chunk_tokens=8), replace(LORA, rank=1, steps=0)])
def test_documents_side_by_side_equal_one_after_the_other_with_adapters_added_into_the_weights(
    random_net: NetFactory, config: DocumentLora, batch_seqs: int
) -> None:
    net, stream = random_net(), some_stream()
    found = tally_of(net, config, stream, replace(WINDOWS, batch_seqs=batch_seqs))
    assert (found.times == 1).all()
    torch.testing.assert_close(found.nats, reference(net, stream, 8, config), atol=1e-4, rtol=0)


def test_a_document_begins_at_its_bos_and_ends_with_predicting_the_next(random_net: NetFactory) -> None:
    assert document_spans(some_stream().tokens) == [(0, 3), (3, 17), (17, 18), (18, 39), (39, 44)]
    assert document_spans(np.array([1, 5, 6, 1], dtype=np.uint16)) == [(0, 3)]


def test_no_score_depends_on_later_tokens_or_on_other_documents(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream()
    before = tally_of(net, LORA, stream).nats
    spans = document_spans(stream.tokens)
    for position in (1, 2, 4, 8, 10, 16, 19, 22, 30, 38, 40, 43):
        if stream.tokens[position] == 1:
            continue  # another token there would join two documents
        tokens = stream.tokens.copy()
        tokens[position] = 2 + (int(tokens[position]) + 5) % 38
        change = (tally_of(net, LORA, Stream(tokens=tokens)).nats - before).abs()
        own = next(span for span in spans if span[0] <= position - 1 < span[1])
        touched = change.nonzero().flatten().tolist()
        assert touched
        assert set(touched) <= set(range(position - 1, own[1]))


def test_what_was_learned_from_a_chunk_moves_the_later_ones_beyond_the_context(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream()
    adapted, plain = (tally_of(net, config, stream).nats for config in (LORA, replace(LORA, steps=0)))
    assert torch.equal(adapted[18:21], plain[18:21]), "the first chunk of a document knows nothing yet"
    assert (adapted[21:39] - plain[21:39]).abs().min() > 1e-5


def test_a_score_is_noted_as_fitted_on_what_was_scored_before_in_its_document(random_net: NetFactory) -> None:
    tally = tally_of(random_net(), LORA, some_stream(), replace(WINDOWS, batch_seqs=1))
    fitted = {
        target
        for event in tally.exposure.events
        if event.fitted_ahead == 0
        for target in range(event.first, event.stop)
    }
    assert fitted == {
        target for first, stop in document_spans(some_stream().tokens) for target in range(first + 3, stop)
    }
    assert tally.exposure.exposed == 0


def test_two_ranks_give_exactly_the_tally_of_one(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream()
    alone = tally_of(net, LORA, stream)
    ranks = [tally_of(net, LORA, stream, gang=Gang(rank=rank, world=2)) for rank in range(2)]
    assert torch.equal(ranks[0].nats + ranks[1].nats, alone.nats)
    assert torch.equal(ranks[0].times + ranks[1].times, alone.times)


def test_the_network_is_as_it_was_and_without_adapters(random_net: NetFactory) -> None:
    net, stream = random_net(), some_stream()
    before = copy.deepcopy(net.state_dict())
    ids = torch.arange(8)[None]
    hidden = net.hidden(ids)
    first = tally_of(net, LORA, stream).nats
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert torch.equal(net.hidden(ids), hidden)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(tally_of(net, LORA, stream).nats, first)


def test_learning_from_a_repetitive_document_lowers_its_loss(random_net: NetFactory) -> None:
    stream = Stream(tokens=np.tile(np.arange(2, 12, dtype=np.uint16), 20))
    plain, adapted = (float(tally_of(random_net(), replace(LORA, steps=n), stream).nats[100:].mean()) for n in (0, 2))
    assert adapted < 0.7 * plain


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"lr": 0.0}, {"chunk_tokens": 0}, {"steps": -1}], ids=lambda change: next(iter(change))
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"score\.ttt\.{name} must be .*got {value}"):
        replace(LORA, **change)


def test_a_chunk_longer_than_the_context_is_refused_with_both_lengths(random_net: NetFactory) -> None:
    with pytest.raises(ValueError, match=r"chunk_tokens must be at most score\.windows\.seq_len=8, got 9"):
        tally_of(random_net(), replace(LORA, chunk_tokens=9), some_stream())
