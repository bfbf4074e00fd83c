"""XSA: what attention found loses its part along the token's own value (openai/parameter-golf #265, #478).

For each query head with the value v_t of its group: y_t <- y_t - (y_t . u_t) u_t, u_t = v_t / |v_t|. No parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from model.net.parts import NetShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Xsa:
    """XSA_LAST_N; 11 of 11 layers in all seeds."""

    last: int = 11
    """In the last so many layers."""

    def check(self, net: NetShape) -> None:
        """Refuse layers that aren't there.

        Raises:
            ValueError: with both numbers.
        """
        if not 1 <= self.last <= net.layers:
            raise ValueError(f"net.xsa.last must be 1 to net.layers={net.layers}, got {self.last}")

    def shrunk(self, layers: int) -> Self:
        """In as many of the last layers as there are."""
        return replace(self, last=min(self.last, layers))

    def attention_finish(self, layer: int, net: NetShape) -> nn.Module | None:
        """For the last layers."""
        return ExcludeOwnValue() if layer >= net.layers - self.last else None


class ExcludeOwnValue(nn.Module):
    """y (B, T, H, d), v (B, T, K, d) of the same rows -> y."""

    def forward(self, y_BTHd: Tensor, v_BTKd: Tensor) -> Tensor:
        """Heads are grouped, no value is repeated."""
        B, T, H, d = y_BTHd.shape
        y = y_BTHd.reshape(B, T, v_BTKd.shape[2], -1, d)
        own = F.normalize(v_BTKd, dim=-1)[:, :, :, None]
        return (y - (y * own).sum(-1, keepdim=True) * own).reshape(B, T, H, d)
