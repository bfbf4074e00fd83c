"""Late quantisation-aware training: near its end the network computes with rounded weights, and the gradient goes to
the unrounded ones (straight-through; Bengio et al. 2013, arXiv:1308.3432; openai/parameter-golf #315).

In the field it is dead once compiled: the flag is a class attribute, which torch.compile takes for a constant (#586,
#667, #1032). Here each matrix is told, and the compiled loss is compiled anew; a test proves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LateQat:
    """Rounds as :mod:`model.quant.rtn` does."""

    threshold: float = 0.15
    """LATE_QAT_THRESHOLD: on while the schedule's factor on the learning rates is below this; above 1 is always."""
    bits: int = 6
    """Of ``pack.matrix_bits``, or others, on purpose."""
    floor: float = 0.0
    """Smallest step of a row; the field's scripts have 1/31 = 0.0323, which most rows are at."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"train.qat.bits must be 2 to 8, got {self.bits}")
        if not self.threshold > 0 or not 0 <= self.floor < 1:
            raise ValueError(
                f"train.qat.threshold must be above 0 and train.qat.floor in [0, 1), "
                f"got {self.threshold} and {self.floor}"
            )

    def rounding(self) -> Callable[[Tensor], Tensor]:
        """What a matrix goes through."""
        top, floor = 2 ** (self.bits - 1) - 1, self.floor
        return lambda weight_OI: straight_through(weight_OI, top, floor)


def straight_through(weight_OI: Tensor, top: int, floor: float) -> Tensor:
    """The rounded matrix, with the gradient of the unrounded one; a row has steps of its largest weight / ``top``."""
    with torch.no_grad():
        scale = (weight_OI.abs().amax(dim=1, keepdim=True) / top).clamp_min(max(floor, 2.0**-24))
        off = torch.round(weight_OI / scale).clamp(-top, top) * scale - weight_OI
    return weight_OI + off
