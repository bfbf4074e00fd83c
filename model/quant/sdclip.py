"""SDClip: a row is cut at a multiple of its standard deviation (openai/parameter-golf #1394): scale = k sd / top.

The entropy of the integers is about b - log2 k and a constant, so k sets the size of the compressed artifact.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.quant.rtn import clipped


@dataclass(frozen=True, kw_only=True, slots=True)
class SdClip:
    """MATRIX_CLIP_SIGMAS 12.85 at 6 bits, EMBED_CLIP_SIGMAS 20 at 8."""

    sigmas: float = 12.85
    floor: float = 0.0
    """Smallest clip; 1 in #1423, which makes an accident of the steps again."""

    def __post_init__(self) -> None:
        if not 0 < self.sigmas <= 1000 or not 0 <= self.floor <= 1000:
            raise ValueError(
                f"SdClip.sigmas must be in (0, 1000] and SdClip.floor in [0, 1000], got {self.sigmas} and {self.floor}"
            )

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,)."""
        return clipped(weight_OI, self.sigmas * weight_OI.float().std(dim=1), self.floor, bits)
