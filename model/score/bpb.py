"""Bits per byte from per-token losses: val_bpb = sum of nats / ln 2 / bytes of text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.gang import Gang


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a scorer found over a stream of n predicted tokens."""

    val_loss_nats: float
    """Mean nats per token."""
    val_bpb: float
    tokens: int
    text_bytes: int
    scored_twice: int
    """Tokens that were scored more than once; 0 in an honest pass."""


class Tally:
    """The loss of each target of the stream, written as it is scored; knows which were written twice."""

    def __init__(self, tokens: int) -> None:
        self.nats = torch.zeros(tokens, dtype=torch.float64)
        self.times = torch.zeros(tokens, dtype=torch.int32)

    def add(self, first: int, nats: Tensor) -> None:
        """Targets [first, first + n) have losses ``nats`` (n,)."""
        span = slice(first, first + len(nats))
        self.nats[span] += nats.double().cpu()
        self.times[span] += 1

    def score(self, bytes_per_target: NDArray[np.int64], gang: Gang) -> Score:
        """The result over all ranks. Sums are taken over tokens in stream order, so that it is the same for any world.

        Raises:
            ValueError: a token was never scored, or the loss of one is not finite.
        """
        # Through the gang's device because nccl has no CPU tensors; each target has one owner, so the sum is exact.
        nats = gang.sum_(self.nats.to(gang.device)).cpu()
        times = gang.sum_(self.times.to(gang.device)).cpu()
        if int(times.min()) == 0:
            raise ValueError(f"{int((times == 0).sum())} of {len(times)} tokens were never scored")
        if not bool(torch.isfinite(nats).all()):
            raise ValueError(f"the loss of {int((~torch.isfinite(nats)).sum())} tokens is not finite")
        total = float((nats / times).sum())
        text_bytes = int(bytes_per_target.sum())
        return Score(
            val_loss_nats=total / len(nats),
            val_bpb=total / math.log(2) / text_bytes,
            tokens=len(nats),
            text_bytes=text_bytes,
            scored_twice=int((times > 1).sum()),
        )
