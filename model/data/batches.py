"""Which tokens a step sees: a pure function of (step, rank), so that every world size sees the same global batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.data.shards import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """Sequential batches of (T + 1)-token rows, wrapping around at the end of the stream, as the field's loader does.

    Row i of the stream covers tokens [iT, iT + T]; step s takes rows [sB, sB + B), rank r every W-th of them.
    """

    tokens: Tokens
    seq_len: int
    batch_seqs: int
    rank: int = 0
    world: int = 1

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
        first = step * self.batch_seqs
        index = [(first + row) % self.rows for row in range(self.rank, self.batch_seqs, self.world)]
        rows = np.stack([self.tokens[i * self.seq_len : i * self.seq_len + self.seq_len + 1] for i in index])
        block = torch.from_numpy(rows.astype(np.int64))
        return block[:, :-1], block[:, 1:]
