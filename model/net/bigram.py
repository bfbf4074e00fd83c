"""BigramHash: the last two (or three) tokens through a hash (openai/parameter-golf #162; trigram #1423).

With V_b rows of d_b: index_t = ((36313 id_t) xor (27191 id_{t-1})) mod (V_b - 1) in int32, and V_b - 1 where there
is no token before; what is added is scale P E[index]. The trigram, from the same table, is (36313 id_t) xor
(27191 id_{t-1}) xor (51497 id_{t-2}), and the last row for the first two tokens. As in the field, a window begins
without a past.

E starts at zero and P orthogonal: the field's class sets P to zero, too, but its general initialisation comes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.net.linear import Linear
from model.net.parts import NetShape

HASH_FACTORS = (36313, 27191, 51497)
"""Of a token, the one before, the one before that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BigramHash:
    """Defaults of #1303 and #1488; #175 has 2048 rows, #1176 2816 of 112."""

    rows: int = 1024
    """V_b; the last row stands for no token before."""
    width: int = 128
    """d_b; without a projection where it is the network's."""
    trigram: bool = False
    depth_scaled: bool = True
    """P starts times 1 / sqrt(2 layers), as in the #175 family; banked models (#1176) don't."""

    def check(self, net: NetShape) -> None:
        """Refuse a table without room.

        Raises:
            ValueError: with the sizes.
        """
        if self.rows < 2 or self.width < 1:
            raise ValueError(f"net.bigram needs 2 rows and a width of 1 or more, got {self.rows} and {self.width}")

    def shrunk(self, layers: int) -> Self:
        """Itself: it knows of no layer."""
        return self

    def embedding_part(self, net: NetShape) -> nn.Module:
        """The module, with fresh weights."""
        gain = (2 * net.layers) ** -0.5 if self.depth_scaled else 1.0
        return HashEmbedding(self.rows, self.width, net.dim, gain, orders=(2, 3) if self.trigram else (2,))


class HashEmbedding(nn.Module):
    """ids (B, T) -> (B, T, D)."""

    def __init__(self, rows: int, width: int, dim: int, gain: float, orders: tuple[int, ...]) -> None:
        super().__init__()
        self.orders = orders
        self.table = nn.Parameter(torch.zeros(rows, width))
        self.project = None if width == dim else Linear(width, dim, gain=gain)
        self.scale = nn.Parameter(torch.tensor([0.05]))

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """In ``dtype``."""
        rows = len(self.table)
        found = torch.stack([F.embedding(ngram_hash(ids_BT, order, rows), self.table) for order in self.orders]).sum(0)
        found = found.to(dtype)
        found = found if self.project is None else self.project(found)
        return found * self.scale.to(dtype)


def ngram_hash(ids_BT: Tensor, order: int, rows: int) -> Tensor:
    """The row, int64 (B, T), of the last ``order`` tokens at each position; the last one where there are fewer."""
    ids = ids_BT.to(torch.int32)
    length = ids.shape[1]
    mixed = torch.zeros_like(ids)
    for back, factor in enumerate(HASH_FACTORS[:order]):
        mixed = mixed ^ F.pad(factor * ids, (back, 0))[:, :length]
    index = torch.remainder(mixed, rows - 1).long()
    position = torch.arange(length, device=ids.device)
    return torch.where(position < order - 1, rows - 1, index)
