"""Value embeddings: the last layers' values are told again which token they are of (openai/parameter-golf #374).

One table (V, w) with a projection P to the width of the values, shared by the layers: v <- v + s_l s P E[id]; s starts
at 0.1, each layer's s_l at 1. P starts orthogonal, as :mod:`model.net.bigram` says of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.net.linear import Linear
from model.net.parts import NetShape, Seen


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueEmbedding:
    """VE128 of #374, on in #1303, #1488 and #1176."""

    width: int = 128
    last: int = 2
    """In the last so many layers: 9 and 10 of 11 in the field."""
    depth_scaled: bool = True
    """P starts times 1 / sqrt(2 layers), as in the #175 family; banked models (#1176) don't."""

    def check(self, net: NetShape) -> None:
        """Refuse layers that aren't there.

        Raises:
            ValueError: with both numbers.
        """
        if not 1 <= self.last <= net.layers:
            raise ValueError(f"net.value_embedding.last must be 1 to net.layers={net.layers}, got {self.last}")
        if self.width < 1:
            raise ValueError(f"net.value_embedding.width must be 1 or more, got {self.width}")

    def shrunk(self, layers: int) -> Self:
        """In as many of the last layers as there are."""
        return replace(self, last=min(self.last, layers))

    def value_table(self, net: NetShape) -> nn.Module:
        """The shared table with its projection."""
        gain = (2 * net.layers) ** -0.5 if self.depth_scaled else 1.0
        return TokenValues(net.vocab_size, self.width, net.kv_heads * (net.dim // net.heads), gain)

    def table_mix(self, layer: int, net: NetShape) -> nn.Module | None:
        """A layer's own scale, for the last layers."""
        return AddTokenValues() if layer >= net.layers - self.last else None


class TokenValues(nn.Module):
    """ids (B, T) -> (B, T, K d)."""

    def __init__(self, vocab_size: int, width: int, kv_dim: int, gain: float) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, width))
        nn.init.normal_(self.table, std=0.01)
        self.project = None if width == kv_dim else Linear(width, kv_dim, gain=gain)
        self.scale = nn.Parameter(torch.tensor([0.1]))

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """In ``dtype``."""
        found = F.embedding(ids_BT, self.table).to(dtype)
        found = found if self.project is None else self.project(found)
        return found * self.scale.to(dtype)


class AddTokenValues(nn.Module):
    """v (B, T, K d) -> v plus what the table says of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, v_BTE: Tensor, seen: Seen) -> Tensor:
        """``seen["token_values"]`` are the table's (B, T, K d)."""
        return v_BTE + seen["token_values"] * self.scale.to(v_BTE.dtype)
