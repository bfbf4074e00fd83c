"""L-BFGS with strong Wolfe line search (Liu & Nocedal 1989), torch's own; openai/parameter-golf #1350 fits with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.slot.adamw import Gradient
from model.slot.config import Fit

Loss = Callable[[Tensor], Tensor]
"""The loss (1,) at parameters (1, P)."""


def lbfgs_steps(w_1P: Tensor, loss: Loss, gradient: Gradient, config: Fit) -> None:
    """At most ``steps`` iterations from ``w_1P``, in place."""
    if not config.steps:
        return
    w = torch.nn.Parameter(w_1P.clone())
    optimiser = torch.optim.LBFGS(
        [w], lr=config.lr, max_iter=config.steps, history_size=config.history, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        with torch.no_grad():
            w.grad = gradient(w).clone()
            return loss(w).sum()

    optimiser.step(closure)
    w_1P.copy_(w.detach())
