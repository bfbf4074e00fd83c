"""Polar Express: other Newton-Schulz coefficients for each iteration (Amsel et al. 2025, arXiv:2505.16932; in the field
openai/parameter-golf #1344, #1855). Each is the best quintic for what the ones before leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""For singular values from 0.001 to 1, with the authors' safety factor of 1.02 (same source)."""
SAFETY = 1.02


@dataclass(frozen=True, kw_only=True, slots=True)
class PolarExpress:
    """In the place of Newton-Schulz with one triple."""

    def check(self, iterations: int) -> None:
        """Refuse iterations for which there are no coefficients.

        Raises:
            ValueError: with the number.
        """
        if iterations > len(POLAR_EXPRESS):
            raise ValueError(
                f"optim.muon_steps must be at most {len(POLAR_EXPRESS)} with Polar Express, got {iterations}"
            )

    def orthogonal(self, g_NOI: Tensor, iterations: int) -> Tensor:
        """Singular values of each matrix of g (N, O, I) moved to about 1; bf16 on CUDA, float32 elsewhere."""
        x = g_NOI.to(torch.bfloat16 if g_NOI.is_cuda else torch.float32)
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(-2, -1), keepdim=True) * SAFETY + 1e-6)
        for a, b, c in POLAR_EXPRESS[:iterations]:
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (x.mT if tall else x).to(g_NOI.dtype)
