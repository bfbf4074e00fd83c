"""Partial rotary position embedding (Su et al. 2021, arXiv:2104.09864; partial: openai/parameter-golf #315).

Only the first ``dims`` of each head turn, in half-split pairs (j, j + dims/2). ``trained_len`` is the field's NTK
rule: beyond it the base grows to base * (T / trained_len)^(dims / (dims - 2)). #1303 fixes it at 1024, so that there
the rule is already active in training at T = 2048.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rope(nn.Module):
    """The rotation tables for any length, made on first use and kept."""

    def __init__(self, dims: int, base: float, trained_len: int) -> None:
        super().__init__()
        self.dims, self.base, self.trained_len = dims, base, trained_len
        self.tables: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 (T, dims/2)."""
        key = (length, device)
        if key not in self.tables:
            base = self.base
            if length > self.trained_len:
                base *= (length / self.trained_len) ** (self.dims / (self.dims - 2))
            frequency = base ** (-torch.arange(0, self.dims, 2, dtype=torch.float64) / self.dims)
            angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
            self.tables[key] = (angle.cos().float().to(device), angle.sin().float().to(device))
        return self.tables[key]


def rotate(x_BTHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first ``2 * cos.shape[-1]`` dims of x (B, T, H, d): x1' = x1 cos + x2 sin, x2' = -x1 sin + x2 cos."""
    half = cos.shape[-1]
    cos, sin = cos[:, None, :].to(x_BTHd.dtype), sin[:, None, :].to(x_BTHd.dtype)
    x1, x2, rest = x_BTHd[..., :half], x_BTHd[..., half : 2 * half], x_BTHd[..., 2 * half :]
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin, rest), dim=-1)
