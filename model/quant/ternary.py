"""Three or five steps a row (openai/parameter-golf #1123): small enough for rANS, whatever ``matrix_bits`` says.

A weight is 0 below t = threshold mean |w| of its row, +-1 above it and, with five steps, +-2 above 2 t; the row's scale
is then the least squares one, sum w q / sum q^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.quant.rtn import SMALLEST_SCALE


@dataclass(frozen=True, kw_only=True, slots=True)
class Ternary:
    """-1, 0, 1."""

    threshold: float = 0.7

    def __post_init__(self) -> None:
        check_threshold(self.threshold, "Ternary")

    @property
    def top(self) -> int:
        """The largest integer."""
        return 1

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,)."""
        return by_thresholds(weight_OI, self.threshold, self.top)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pentanary:
    """-2, -1, 0, 1, 2."""

    threshold: float = 0.7

    def __post_init__(self) -> None:
        check_threshold(self.threshold, "Pentanary")

    @property
    def top(self) -> int:
        """The largest integer."""
        return 2

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,)."""
        return by_thresholds(weight_OI, self.threshold, self.top)


def by_thresholds(weight_OI: Tensor, threshold: float, top: int) -> tuple[Tensor, Tensor]:
    """Integers int8 (O, I) up to ``top``, each from its multiple of the threshold on, and the best scales (O,)."""
    weight = weight_OI.float()
    sizes = weight.abs()
    least = threshold * sizes.mean(dim=1, keepdim=True)
    q = torch.sign(weight) * sum((sizes > step * least).float() for step in range(1, top + 1))
    scale = (weight * q).sum(dim=1) / q.square().sum(dim=1).clamp_min(1)
    return q.to(torch.int8), scale.clamp_min(SMALLEST_SCALE).half()


def check_threshold(threshold: float, name: str) -> None:
    """Refuse one that leaves nothing, or everything.

    Raises:
        ValueError: with the value.
    """
    if not 0 < threshold <= 10:
        raise ValueError(f"{name}.threshold must be in (0, 10], got {threshold}")
