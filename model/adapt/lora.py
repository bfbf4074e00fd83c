"""Test-time training of a low-rank adapter per document (openai/parameter-golf #77, #1530; LoRA: Hu et al. 2022,
arXiv:2106.09685).

Every document begins with the packed weights W. Its chunks are scored one after the other with W + U D, context and
positions reaching back to the document's start at most; once a chunk is scored, U and D take gradient steps on it.
Nothing passes from one document to the next, so documents are scored side by side and split over ranks as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapt.descent import gradients_for
from model.data.shards import Tokens
from model.data.vocab import BOS
from model.gang import Gang
from model.net.gpt import GPT
from model.net.linear import Linear
from model.overlay import check_finite_fields
from model.score.bpb import Tally
from model.score.sliding import log_probs
from model.score.stream import Stream
from model.score.windows import WindowConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentLora:
    """Rank, rate and chunk of #77. ``score.windows.seq_len`` bounds the context and ``batch_seqs`` the documents side
    by side; the stride has no say, as each chunk is scored once with all the context that it has."""

    rank: int = 8
    lr: float = 0.01
    """Of AdamW with torch's defaults and no weight decay, over each adapter alone."""
    chunk_tokens: int = 256
    steps: int = 1
    """Gradient steps on each chunk after it is scored; 0 adapts nothing."""

    def __post_init__(self) -> None:
        check_finite_fields(self, "score.ttt")
        for name in ("rank", "chunk_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"score.ttt.{name} must be 1 or more, got {getattr(self, name)}")
        if self.steps < 0:
            raise ValueError(f"score.ttt.steps must be 0 or more, got {self.steps}")
        if self.lr <= 0:
            raise ValueError(f"score.ttt.lr must be above 0, got {self.lr}")

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Predict every target of ``stream`` into ``tally``; the network's own weights never change.

        Raises:
            ValueError: a chunk is longer than the context may be.
        """
        if self.chunk_tokens > windows.seq_len:
            raise ValueError(
                f"score.ttt.chunk_tokens must be at most score.windows.seq_len={windows.seq_len}, "
                f"got {self.chunk_tokens}"
            )
        # Longest first: documents of a batch then end at about the same time, and those that go on are its head.
        spans = sorted(document_spans(stream.tokens), key=self._chunks, reverse=True)
        size = windows.batch_seqs
        batches = [spans[i : i + size] for i in range(0, len(spans), size)]
        for batch in batches[gang.rank :: gang.world]:
            self._score_batch(net, stream, batch, windows.seq_len, tally, gang)

    def _chunks(self, span: tuple[int, int]) -> int:
        return -(-(span[1] - span[0]) // self.chunk_tokens)

    def _score_batch(
        self, net: GPT, stream: Stream, batch: list[tuple[int, int]], longest: int, tally: Tally, gang: Gang
    ) -> None:
        """All chunks of the documents of ``batch``, each with an adapter of its own."""
        chunks = [self._chunks(span) for span in batch]
        with gradients_for(net, lambda _: False), adapters(net, len(batch), self.rank) as parameters:
            adam = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=0.0)
            for chunk in range(chunks[0]):
                stop = (chunk + 1) * self.chunk_tokens
                start = max(0, stop - longest)
                context = chunk * self.chunk_tokens - start
                active = batch[: sum(count > chunk for count in chunks)]
                inputs, targets = document_rows(stream.tokens, active, start, stop, gang.device)
                self._score(net, active, inputs, context, chunk, tally)
                going_on = sum(count > chunk + 1 for count in chunks)  # their chunk is whole
                for _ in range(self.steps if going_on else 0):
                    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs.is_cuda):
                        logits = net.logits(net.hidden(inputs[:going_on], context))
                    # Each document learns from its own mean, whoever is beside it.
                    wanted = targets[:going_on, context:].flatten()
                    (F.cross_entropy(logits.flatten(0, 1), wanted) * going_on).backward()
                    adam.step()
                    adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _score(
        self, net: GPT, active: list[tuple[int, int]], inputs: Tensor, context: int, chunk: int, tally: Tally
    ) -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs.is_cuda):
            hidden = net.hidden(inputs, context).float()
        for (begin, end), hidden_SD in zip(active, hidden, strict=True):
            first = begin + chunk * self.chunk_tokens
            fitted_to = [first] if chunk and self.steps else None
            tally.add([first], log_probs(net, hidden_SD[None, : end - first]), fitted_to)


def document_spans(tokens: Tokens) -> list[tuple[int, int]]:
    """Targets [first, stop) of each document of tokens (n + 1,): from its BOS up to, and with, the next one; what
    stands before the first BOS is a document, too."""
    begins = np.flatnonzero(np.asarray(tokens[:-1]) == BOS).tolist()
    return list(pairwise(sorted({0, *begins, len(tokens) - 1})))


def document_rows(
    tokens: Tokens, spans: Sequence[tuple[int, int]], start: int, stop: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, stop - start), int64, at [start, stop) of each document; zeros beyond its end, where
    nobody looks: attention is causal."""
    rows = np.zeros((len(spans), stop - start + 1), dtype=np.int64)
    for row, (first, end) in zip(rows, spans, strict=True):
        own = tokens[first + start : min(first + stop, end) + 1]
        row[: len(own)] = own
    block = torch.from_numpy(rows).to(device)
    return block[:, :-1], block[:, 1:]


@contextlib.contextmanager
def adapters(net: GPT, documents: int, rank: int) -> Iterator[list[nn.Parameter]]:
    """An adapter for each document at every matrix of the blocks, and their parameters; gone afterwards."""
    generator = torch.Generator().manual_seed(0)
    linears = [module for module in net.blocks.modules() if isinstance(module, Linear)]
    added = [LowRank(linear, documents, rank, generator) for linear in linears]
    handles = [linear.register_forward_hook(one) for linear, one in zip(linears, added, strict=True)]
    try:
        yield [parameter for one in added for parameter in (one.down, one.up)]
    finally:
        for handle in handles:
            handle.remove()


class LowRank:
    """Adds U D x to what a matrix makes of x, with U and D of the document whose row it is. U begins at zero and D, the
    same for all documents, with rows of length about 1."""

    def __init__(self, linear: Linear, documents: int, rank: int, generator: torch.Generator) -> None:
        outputs, inputs = linear.weight.shape
        device = linear.weight.device
        down = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
        self.down = nn.Parameter(down.to(device).repeat(documents, 1, 1))
        self.up = nn.Parameter(torch.zeros(documents, outputs, rank, device=device))

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """x (B, T, I) of the first B documents, W x (B, T, O) -> (B, T, O)."""
        (x,) = arguments
        down, up = self.down[: len(x)].to(x.dtype), self.up[: len(x)].to(x.dtype)
        return output + x @ down.mT @ up.mT
