"""Which rows SLOT works on: the loss rows of groups of windows that share parameters, with their logits Z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

SMALL_ROWS = 256
"""Groups go in step on a CPU until they have this many rows together: the products with W pass over it once for all,
and yet the logits of a step stay in a core's cache."""
PADDING = -1
"""Target of a row that is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The output layer: weights (V, D) and the soft cap c of the logits; float32."""

    weight_VD: Tensor
    over_cap_DV: Tensor
    cap: float

    @classmethod
    def of(cls, weight_VD: Tensor, cap: float) -> Head:
        """Float32 copies, made once a pass."""
        weight = weight_VD.detach().float()
        return cls(weight_VD=weight, over_cap_DV=(weight.mT / cap).contiguous(), cap=cap)

    @property
    def dim(self) -> int:
        return self.weight_VD.shape[1]

    @property
    def parameters(self) -> int:
        """P = D + V: a shift and a bias."""
        return sum(self.weight_VD.shape)

    def offset(self, w_GP: Tensor) -> Tensor:
        """What parameters (G, P) add to Z: (d W^T + b) / c, (G, V)."""
        return torch.addmm(w_GP[:, self.dim :] / self.cap, w_GP[:, : self.dim], self.over_cap_DV)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Groups that go in step; shorter ones are padded at the end."""

    groups: slice
    z_GRV: Tensor
    """H W^T / c."""
    targets_GR: Tensor

    @property
    def counts_G(self) -> Tensor:
        return (self.targets_GR != PADDING).sum(1)


def rows_of(hidden_BTD: Tensor, head: Head, targets_BT: Tensor, mask_BT: Tensor, whole_batch: bool) -> Iterator[Rows]:
    """The rows of ``mask_BT``, each window a group of its own or the whole batch one; made as they are asked for."""
    if whole_batch:
        hidden_BTD, targets_BT, mask_BT = (x.flatten(0, 1)[None] for x in (hidden_BTD, targets_BT, mask_BT))
    longest = max(1, int(mask_BT.sum(1).max()))
    together = len(mask_BT) if hidden_BTD.is_cuda else -(-SMALL_ROWS // longest)
    for i in range(0, len(mask_BT), together):
        part = slice(i, i + together)
        hidden = [h[mask].float() for h, mask in zip(hidden_BTD[part], mask_BT[part], strict=True)]
        targets = [y[mask] for y, mask in zip(targets_BT[part], mask_BT[part], strict=True)]
        z = pad_sequence(hidden, batch_first=True) @ head.over_cap_DV
        yield Rows(groups=part, z_GRV=z, targets_GR=pad_sequence(targets, batch_first=True, padding_value=PADDING))
