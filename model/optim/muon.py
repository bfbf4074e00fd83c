"""Muon: momentum, then the nearest semi-orthogonal matrix (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

As in the field (openai/parameter-golf, MATRIX_LR, MUON_WD): buf = mu buf + g; u = NS5(g + mu buf);
W <- W (1 - lr wd) - lr sqrt(max(1, rows / columns)) u. Matrices of one shape go through Newton-Schulz as one batch.
MuonEq-R (#1217, #1260, #1394) divides the rows of what goes into Newton-Schulz by their length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients that push singular values to about 1 in five iterations (same source)."""

Orthogonalise = Callable[[Tensor], Tensor]
"""From matrices (N, O, I) to ones with singular values of about 1."""


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

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool = True,
        row_normalize: bool = False,
        to_orthogonal: Orthogonalise = orthogonalise,
    ) -> None:
        ordered = sorted(matrices, key=lambda w: tuple(w.shape))
        super().__init__(ordered, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.nesterov, self.row_normalize, self.to_orthogonal = nesterov, row_normalize, to_orthogonal

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients in place."""
        for group in self.param_groups:
            for _, same in groupby(group["params"], key=lambda w: tuple(w.shape)):
                weights = list(same)
                updates = self.updates(torch.stack([self._momentum(w, group["momentum"]) for w in weights]))
                move(weights, updates, group["lr"], group["weight_decay"])

    def updates(self, u_NOI: Tensor) -> Tensor:
        """Orthogonal matrices (N, O, I) from momenta."""
        if self.row_normalize:
            u_NOI = u_NOI / u_NOI.norm(dim=-1, keepdim=True).clamp_min(1e-7)
        return self.to_orthogonal(u_NOI)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """The running sum of gradients, and with Nesterov a look ahead."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["buffer"].mul_(momentum).add_(weight.grad)
        return weight.grad + momentum * buffer if self.nesterov else buffer


def move(weights: list[Tensor], updates_NOI: Tensor, lr: float, weight_decay: float) -> None:
    """Decay each weight (O, I) and take a step, larger for tall matrices; in place."""
    size = max(1.0, updates_NOI.shape[-2] / updates_NOI.shape[-1]) ** 0.5
    for weight, update in zip(weights, updates_NOI.unbind(), strict=False):
        weight.mul_(1 - lr * weight_decay)
        weight.add_(update, alpha=-lr * size)
