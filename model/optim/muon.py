"""Muon: momentum, then the nearest semi-orthogonal matrix (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

As in the field (openai/parameter-golf, MATRIX_LR, MUON_WD): buf = mu buf + g; u = NS5(g + mu buf);
W <- W (1 - lr wd) - lr sqrt(max(1, rows / columns)) u. Matrices of one shape go through Newton-Schulz as one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients that push singular values to about 1 in five iterations (same source)."""


def orthogonalise(g_NOI: Tensor, iterations: int = 5) -> Tensor:
    """Singular values of each matrix of g (N, O, I) moved to about 1; bf16 on CUDA, float32 elsewhere."""
    a, b, c = NEWTON_SCHULZ
    x = g_NOI.to(torch.bfloat16 if g_NOI.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g_NOI.dtype)


class Muon(torch.optim.Optimizer):
    """For the hidden matrices; ``lr`` and ``momentum`` of the group are set by the schedule before each step."""

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float) -> None:
        ordered = sorted(matrices, key=lambda w: tuple(w.shape))
        super().__init__(ordered, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients in place."""
        for group in self.param_groups:
            for shape, same in groupby(group["params"], key=lambda w: tuple(w.shape)):
                weights = list(same)
                updates = orthogonalise(torch.stack([self._momentum(w, group["momentum"]) for w in weights]))
                size = max(1.0, shape[0] / shape[1]) ** 0.5
                for weight, update in zip(weights, updates.unbind(), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-group["lr"] * size)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov's look-ahead on the running average of gradients."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["buffer"] = torch.zeros_like(weight)
        buffer = state["buffer"].mul_(momentum).add_(weight.grad)
        return weight.grad + momentum * buffer
