"""The field's row scales from quantiles (openai/parameter-golf #175, #1303): clip / top, but never below floor / top.

The search ("GPTQ-lite") tries five quantiles of a row's absolute values as its clip and takes the one with the smallest
squared error over the whole matrix. Typical rows have no weight near 1, so that a floor of 1, the field's, sets
their step whatever the quantile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.quant.rtn import clipped

CLIP_QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSearch:
    """Of int6 matrices in #1303, #1488 and #1176."""

    floor: float = 1.0
    """Smallest clip; 0 leaves it to the row."""

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1000:
            raise ValueError(f"ClipSearch.floor must be in [0, 1000], got {self.floor}")

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,)."""
        found = [clipped(weight_OI, row_quantile(weight_OI, one), self.floor, bits) for one in CLIP_QUANTILES]
        errors = [float((weight_OI - q * scale.float()[:, None]).square().mean()) for q, scale in found]
        return found[errors.index(min(errors))]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantileClip:
    """Of int8 tables in the same scripts."""

    quantile: float = 0.9999984
    floor: float = 1.0
    """Smallest clip; 0 leaves it to the row."""

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1 or not 0 <= self.floor <= 1000:
            raise ValueError(
                f"QuantileClip.quantile must be in (0, 1] and QuantileClip.floor in [0, 1000], "
                f"got {self.quantile} and {self.floor}"
            )

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,)."""
        return clipped(weight_OI, row_quantile(weight_OI, self.quantile), self.floor, bits)


def row_quantile(weight_OI: Tensor, quantile: float) -> Tensor:
    """Of the absolute values of each row (O,)."""
    sizes = weight_OI.float().abs()
    return sizes.amax(dim=1) if quantile == 1 else torch.quantile(sizes, quantile, dim=1)
