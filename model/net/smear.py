"""SmearGate: each normed embedding takes a share of the one before (openai/parameter-golf #65, #162).

g = sigmoid(gamma) in R^D, gamma starting at 0: y_t = (1 - g) x_t + g x_{t-1}, with x_{-1} = 0. Where many documents lie
in one stream, a document's first token takes from the last one of another; ``document_start`` ends that (#1851).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.net.parts import NetShape


@dataclass(frozen=True, kw_only=True, slots=True)
class SmearGate:
    """On in every seed, without the fix."""

    document_start: int | None = None
    """The token that begins a document (1 in the field's tokenizers): what stands before it counts as nothing. None:
    documents smear into each other, as in the seeds."""

    def check(self, net: NetShape) -> None:
        """Refuse a token that is none.

        Raises:
            ValueError: with the token and the vocabulary's size.
        """
        if self.document_start is not None and not 0 <= self.document_start < net.vocab_size:
            raise ValueError(
                f"net.smear.document_start must be a token of net.vocab_size={net.vocab_size}, "
                f"got {self.document_start}"
            )

    def shrunk(self, layers: int) -> Self:
        """Itself: it knows of no layer."""
        return self

    def input_part(self, net: NetShape) -> nn.Module:
        """The module, half and half at the start."""
        return Smear(net.dim, self.document_start)


class Smear(nn.Module):
    """x (B, T, D), ids (B, T) -> (B, T, D)."""

    def __init__(self, dim: int, document_start: int | None) -> None:
        super().__init__()
        self.document_start = document_start
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        """Only the row before is looked at, so that the first row of a window has nothing before it."""
        gate = torch.sigmoid(self.gate.to(x_BTD.dtype))
        before = F.pad(x_BTD, (0, 0, 1, 0))[:, :-1]
        if self.document_start is not None:
            before = before * (ids_BT != self.document_start)[:, :, None]
        return (1 - gate) * x_BTD + gate * before
