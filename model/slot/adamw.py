"""AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with its rate schedule, as torch.optim.AdamW computes it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.slot.config import Fit

Gradient = Callable[[Tensor], Tensor]
"""The gradient (G, P) at parameters (G, P)."""


def rate_at(step: int, config: Fit) -> float:
    """The learning rate of step 0, 1, ... (cosine: Loshchilov & Hutter 2017, as #1303 writes it)."""
    if config.schedule == "constant":
        return config.lr
    return config.lr_min + 0.5 * (config.lr - config.lr_min) * (1 + math.cos(math.pi * step / config.steps))


def adamw_steps(w_GP: Tensor, gradient: Gradient, config: Fit) -> None:
    """Take all steps from ``w_GP``, in place."""
    mean, square = torch.zeros_like(w_GP), torch.zeros_like(w_GP)
    for step in range(config.steps):
        grad = gradient(w_GP)
        rate = rate_at(step, config)
        w_GP.mul_(1 - rate * config.weight_decay)
        mean.lerp_(grad, 1 - config.beta1)
        square.mul_(config.beta2).addcmul_(grad, grad, value=1 - config.beta2)
        denominator = (square / (1 - config.beta2 ** (step + 1))).sqrt_().add_(config.eps)
        w_GP.addcdiv_(mean, denominator, value=-rate / (1 - config.beta1 ** (step + 1)))
