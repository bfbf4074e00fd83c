"""The field's MLP: down(leaky_relu(up(x), slope)^2), slope 0.5 (openai/parameter-golf #493, #549). The square drops the
sign. The public repository's default has slope 0, which is relu(x)^2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model.net.linear import Linear


class Mlp(nn.Module):
    """D -> multiple * D -> D; the second matrix starts at zero."""

    def __init__(self, dim: int, multiple: int, slope: float = 0.5) -> None:
        super().__init__()
        self.slope = slope
        self.up = Linear(dim, multiple * dim)
        self.down = Linear(multiple * dim, dim, zero_init=True)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.down(F.leaky_relu(self.up(x_BTD), self.slope).square())
