"""One pre-norm block with the residual mix: x_in = m0 x + m1 x0, then attention and MLP with learned scales.

LN scale (openai/parameter-golf #315) multiplies both normed inputs by 1 / sqrt(layer + 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.net.attention import Attention
from model.net.mlp import Mlp
from model.net.norm import rms_norm
from model.net.parts import Seen


class Block(nn.Module):
    """Starts as the identity: mix (1, 0), and both branches end in a zero matrix."""

    def __init__(self, attention: Attention, mlp: Mlp, dim: int, norm_scale: float) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.norm_scale = norm_scale
        self.mix = nn.Parameter(torch.stack((torch.ones(dim), torch.zeros(dim))))
        self.attention_scale = nn.Parameter(torch.ones(dim))
        self.mlp_scale = nn.Parameter(torch.ones(dim))

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, cos: Tensor, sin: Tensor, first_row: int = 0, seen: Seen | None = None
    ) -> Tensor:
        """x, x0 (B, T, D) -> (B, T - first_row, D); x0 is the embedded input."""
        mix = self.mix.to(x_BTD.dtype)
        x = mix[0] * x_BTD + mix[1] * x0_BTD
        found = self.attention(self.norm_scale * rms_norm(x), cos, sin, first_row, seen)
        x = x[:, first_row:] + self.attention_scale.to(x.dtype) * found
        return x + self.mlp_scale.to(x.dtype) * self.mlp(self.norm_scale * rms_norm(x))

    def take_skip(self, x: Tensor, join: Callable[[Tensor], Tensor]) -> Tensor:
        """What the block is given where a U-Net skip comes in: ``join`` puts the skip into a stream (B, T, D)."""
        return join(x)

    def leave(self, x: Tensor) -> Tensor:
        """The stream (B, T, D) of what the last block has made."""
        return x
