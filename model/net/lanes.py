"""Parallel residual with two lanes (openai/parameter-golf #1204, #1529): attention reads one, the MLP the other.

From layer ``first`` on the stream is two lanes l_0, l_1, alike at first. With a = s_a Attn(c RMS(m0 l_0 + m1 x0)) and
b = s_m MLP(c RMS(l_1)): l_j <- r_j l_j + p_aj a + p_bj b, r starting at sqrt(1.1) and p at 1. U-Net skips come into
l_0; the network ends with the mean of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from model.net.attention import Attention
from model.net.block import Block
from model.net.mlp import Mlp
from model.net.norm import rms_norm
from model.net.parts import NetShape, Seen


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoLanes:
    """The form of #1529, in which both write at the end of the block."""

    first: int = 8
    """From this layer on."""

    def check(self, net: NetShape) -> None:
        """Refuse a layer that isn't there, that saves a skip (one lane), or after which one lane is due again.

        Raises:
            ValueError: with the layers.
        """
        if not 0 <= self.first < net.layers:
            raise ValueError(f"net.parallel.first must be a layer of net.layers={net.layers} from 0, got {self.first}")
        lanes = [layer >= self.first for layer in net.order]
        if any(lanes[: net.skips]) or (net.skips and self.first < net.layers // 2):
            raise ValueError(f"net.parallel.first={self.first} is among the layers that save a skip: {net.order}")
        if lanes != sorted(lanes):
            raise ValueError(f"net.parallel.first={self.first}: a later layer takes one lane again: {net.order}")

    def shrunk(self, layers: int) -> Self:
        """In the last layer at least."""
        return replace(self, first=max(layers // 2, min(self.first, layers - 1)))

    def block_kind(self, layer: int) -> type[Block]:
        """What layer ``layer`` is."""
        return LaneBlock if layer >= self.first else Block


class LaneBlock(Block):
    """Takes one lane or two, (B, T, D) or (2, B, T, D), and gives two."""

    def __init__(self, attention: Attention, mlp: Mlp, dim: int, norm_scale: float) -> None:
        super().__init__(attention, mlp, dim, norm_scale)
        self.keep = nn.Parameter(torch.full((2,), 1.1**0.5))
        self.post = nn.Parameter(torch.ones(2, 2))

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, cos: Tensor, sin: Tensor, first_row: int = 0, seen: Seen | None = None
    ) -> Tensor:
        """(2, B, T - first_row, D)."""
        lanes = x_BTD if x_BTD.ndim == 4 else torch.stack((x_BTD, x_BTD))
        dtype = lanes.dtype
        mix, keep, post = self.mix.to(dtype), self.keep.to(dtype), self.post.to(dtype)
        read = self.norm_scale * rms_norm(mix[0] * lanes[0] + mix[1] * x0_BTD)
        found = self.attention_scale.to(dtype) * self.attention(read, cos, sin, first_row, seen)
        lanes = lanes[:, :, first_row:]
        made = self.mlp_scale.to(dtype) * self.mlp(self.norm_scale * rms_norm(lanes[1]))
        return torch.stack([keep[j] * lanes[j] + post[0, j] * found + post[1, j] * made for j in (0, 1)])

    def take_skip(self, x: Tensor, join: Callable[[Tensor], Tensor]) -> Tensor:
        """Into the first lane alone."""
        return torch.stack((join(x[0]), x[1])) if x.ndim == 4 else join(x)

    def leave(self, x: Tensor) -> Tensor:
        """The mean of both lanes."""
        return x.mean(0)
