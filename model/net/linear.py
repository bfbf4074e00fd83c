"""A bias-free matrix with a float32 master weight that computes in the dtype of its input."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """``y = x W^T``, W (O, I), float32; orthogonal (times ``gain``) at the start, or zero so that its block begins as
    the identity."""

    rounding: Callable[[Tensor], Tensor] | None
    """What W goes through before it is used, while training gets used to rounded weights. Of each matrix and not of the
    class, so that torch.compile sees the change: the field's class attribute is a constant to it, its late QAT dead."""

    def __init__(self, inputs: int, outputs: int, *, zero_init: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        self.rounding, self.zero_init = None, zero_init
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        if zero_init:
            nn.init.zeros_(self.weight)
        else:
            nn.init.orthogonal_(self.weight, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        weight = self.weight if self.rounding is None else self.rounding(self.weight)
        return F.linear(x, weight.to(x.dtype))
