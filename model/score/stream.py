"""The validation stream as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.data.shards import Tokens
from model.score.windows import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Tokens x_0 .. x_n; input i predicts target x_{i+1}."""

    tokens: Tokens

    def __post_init__(self) -> None:
        if len(self.tokens) < 2:
            raise ValueError(f"the validation split has {len(self.tokens)} tokens, so there is none to predict")

    @property
    def targets(self) -> int:
        """n, the number of predictions."""
        return len(self.tokens) - 1


def window_rows(stream: Stream, batch: list[Window], device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T), int64, of windows of one length."""
    rows = np.stack([stream.tokens[w.start : w.stop + 1] for w in batch]).astype(np.int64)
    block = torch.from_numpy(rows).to(device)
    return block[:, :-1], block[:, 1:]
