"""Sigmoid-gated U-Net skips (openai/parameter-golf #1172, #1394): x <- s + sigmoid(g_j) (x - s) for the scaled skip s.

g_j (D) starts at 0, so that x and the skip begin half and half; a plain skip is added: x + s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from model.net.parts import NetShape


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipGates:
    """SKIP_GATES_ENABLED, on in #1394, #1423 and #1493."""

    def check(self, net: NetShape) -> None:
        """Fits any network that has skips."""

    def shrunk(self, layers: int) -> Self:
        """Itself: it knows of no layer."""
        return self

    def skip_part(self, net: NetShape, skips: int) -> nn.Module:
        """A gate for each of ``skips``."""
        return GatedSkip(skips, net.dim)


class GatedSkip(nn.Module):
    """x, scaled skip (B, T, D) -> x."""

    def __init__(self, skips: int, dim: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(skips, dim))

    def forward(self, x_BTD: Tensor, skip_BTD: Tensor, number: int) -> Tensor:
        """Of skip ``number``, the newest first."""
        return torch.lerp(skip_BTD, x_BTD, torch.sigmoid(self.gates[number].to(x_BTD.dtype)))
