"""Value residual learning: every layer's values are mixed with the first layer's (Zhou et al. 2024, arXiv:2410.17897;
openai/parameter-golf #175).

v <- (1 - g) v + g v_first, g = sigmoid(theta), theta a number of each layer but the first, starting at -1.5; v_first
are the first layer's values before anything is added to them, while v has its value embedding already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from model.net.parts import NetShape, Seen


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueResidual:
    """VRL of #175, #1303 and #1488."""

    gate: float = -1.5
    """theta at the start: a share of 0.18."""

    def check(self, net: NetShape) -> None:
        """Refuse a network of one layer, which would have nothing to mix.

        Raises:
            ValueError: with the number of layers.
        """
        if net.layers < 2:
            raise ValueError(f"net.value_residual needs 2 layers or more, got net.layers={net.layers}")

    def shrunk(self, layers: int) -> Self:
        """Itself: it is in all layers."""
        return self

    def value_mix(self, layer: int, net: NetShape) -> nn.Module | None:
        """The first layer keeps its values for the others."""
        return MixFirstValues(self.gate) if layer else KeepFirstValues()


class KeepFirstValues(nn.Module):
    """v (B, T, K d) -> v, remembered as ``seen["first_values"]``."""

    def forward(self, v_BTE: Tensor, seen: Seen) -> Tensor:
        """Where the layer runs again, its first values stay the first."""
        seen.setdefault("first_values", v_BTE)
        return v_BTE


class MixFirstValues(nn.Module):
    """v (B, T, K d) -> (1 - g) v + g v_first."""

    def __init__(self, gate: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.tensor([gate]))

    def forward(self, v_BTE: Tensor, seen: Seen) -> Tensor:
        """g is the sigmoid of ``gate``."""
        gate = torch.sigmoid(self.gate.to(v_BTE.dtype))
        return (1 - gate) * v_BTE + gate * seen["first_values"]
