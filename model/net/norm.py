"""RMS normalisation without a weight (Zhang & Sennrich 2019, arXiv:1910.07467), as the field uses it everywhere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor) -> Tensor:
    """``x`` (..., D) divided by its root mean square over D."""
    return F.rms_norm(x, (x.shape[-1],))
