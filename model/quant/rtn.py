"""Round to nearest with one float16 scale a row: the plainest quantiser, and the reference for the others.

scale = max |row| / (2^(bits - 1) - 1), q = round(w / scale). There is no floor on the scale: the 1/31 floor of the
field's scripts decides the step of typical rows by accident (openai/parameter-golf #175, #1303, #1416).
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-24
"""The smallest positive float16; rows below it are all zero after rounding anyway."""


def round_rows(weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Integers int8 (O, I) in [-(2^(bits-1)-1), 2^(bits-1)-1] and scales float16 (O,) of a matrix (O, I)."""
    top = 2 ** (bits - 1) - 1
    weight = weight_OI.float()
    exact = (weight.abs().amax(dim=1) / top).clamp_min(SMALLEST_SCALE)
    scale = exact.half()
    scale = torch.where(scale.float() < exact, torch.nextafter(scale, torch.full_like(scale, torch.inf)), scale)
    q = torch.round(weight / scale.float()[:, None]).clamp_(-top, top)
    return q.to(torch.int8), scale


def clipped(weight_OI: Tensor, clip_O: Tensor, floor: float, bits: int) -> tuple[Tensor, Tensor]:
    """Integers and scales for rows that are cut at ``clip_O``, or at ``floor`` where that is more."""
    top = 2 ** (bits - 1) - 1
    scale = (clip_O.clamp_min(floor) / top).clamp_min(SMALLEST_SCALE).half()
    q = torch.round(weight_OI.float() / scale.float()[:, None]).clamp_(-top, top)
    return q.to(torch.int8), scale


def unround_rows(q_OI: Tensor, scale_O: Tensor) -> Tensor:
    """The float32 matrix (O, I) that the integers stand for."""
    return q_OI.float() * scale_O.float()[:, None]
