"""A bias-free matrix with a float32 master weight that computes in the dtype of its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """``y = x W^T``, W (O, I), float32; orthogonal at the start, or zero so that its block begins as the identity."""

    def __init__(self, inputs: int, outputs: int, *, zero_init: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        if zero_init:
            nn.init.zeros_(self.weight)
        else:
            nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        return F.linear(x, self.weight.to(x.dtype))
