"""Parallel residual: from some layer on the MLP reads what attention reads (GPT-J; openai/parameter-golf #1412, #1493).

x_in = m0 x + m1 x0; out = x_in + s_a Attn(c RMS(x_in)) + s_m MLP(c RMS(x_in)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from model.net.block import Block
from model.net.norm import rms_norm
from model.net.parts import NetShape, Seen


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelResidual:
    """PARALLEL_RESIDUAL_START."""

    first: int = 7
    """From this layer on."""

    def check(self, net: NetShape) -> None:
        """Refuse a layer that isn't there.

        Raises:
            ValueError: with both numbers.
        """
        if not 0 <= self.first < net.layers:
            raise ValueError(f"net.parallel.first must be a layer of net.layers={net.layers} from 0, got {self.first}")

    def shrunk(self, layers: int) -> Self:
        """In the last layer at least."""
        return replace(self, first=min(self.first, layers - 1))

    def block_kind(self, layer: int) -> type[Block]:
        """What layer ``layer`` is."""
        return ParallelBlock if layer >= self.first else Block


class ParallelBlock(Block):
    """Both branches side by side."""

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, cos: Tensor, sin: Tensor, first_row: int = 0, seen: Seen | None = None
    ) -> Tensor:
        """As Block's."""
        mix = self.mix.to(x_BTD.dtype)
        x = mix[0] * x_BTD + mix[1] * x0_BTD
        normed = self.norm_scale * rms_norm(x)
        found = self.attention_scale.to(x.dtype) * self.attention(normed, cos, sin, first_row, seen)
        return x[:, first_row:] + found + self.mlp_scale.to(x.dtype) * self.mlp(normed[:, first_row:])
