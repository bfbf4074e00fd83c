"""Which tokens a step sees: a pure function of (seed, step, rank), so that every world size sees the same global
batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.data.orders import Order, rows_at
from model.data.shards import Tokens


class TokenStream(Protocol):
    """Tokens end to end; slices of them are arrays."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice, /) -> Tokens: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """Batches of (T + 1)-token rows, epoch after epoch.

    Row i of the stream covers tokens [iT, iT + T]; step s takes the rows at places [sB, sB + B) of the order, rank r
    every W-th of them.
    """

    tokens: TokenStream
    seq_len: int
    batch_seqs: int
    rank: int = 0
    world: int = 1
    order: Order = "sequential"
    seed: int = 0
    """Names the shuffle or the stride; the sequential order has none."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"{len(self.tokens)} training tokens are fewer than one row of {self.seq_len} + 1")
        if self.batch_seqs % self.world:
            raise ValueError(f"a batch of {self.batch_seqs} sequences does not divide over {self.world} ranks")

    @property
    def rows(self) -> int:
        return (len(self.tokens) - 1) // self.seq_len

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B/W, T), int64, of this rank at ``step``."""
        return halves(self.block(step))

    def block(self, step: int) -> Tensor:
        """Both as rows (B/W, T + 1) of one piece of memory."""
        first = step * self.batch_seqs
        places = np.arange(first + self.rank, first + self.batch_seqs, self.world, dtype=np.uint64)
        block = np.empty((len(places), self.seq_len + 1), dtype=np.int64)
        for row, i in zip(block, rows_at(self.order, places, self.rows, self.seed).tolist(), strict=True):
            row[:] = self.tokens[i * self.seq_len : i * self.seq_len + self.seq_len + 1]
        return torch.from_numpy(block)


def halves(block: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, T + 1) as inputs and targets (B, T)."""
    return block[:, :-1], block[:, 1:]
