"""Exponential moving average of the weights, the ones that are packed (openai/parameter-golf #401: decay 0.997)."""

from __future__ import annotations

import torch
from torch import nn


class Ema:
    """shadow <- decay shadow + (1 - decay) weight after each step, in float32."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = [p.detach() for p in net.parameters()]
        self.shadow = [w.float().clone() for w in self.weights]

    @torch.no_grad()
    def update(self, step: int = 0, scale: float = 1.0) -> None:
        """Take the current weights in, at every step and rate alike."""
        torch._foreach_lerp_(self.shadow, self.weights, 1 - self.decay)

    @torch.no_grad()
    def load(self) -> None:
        """Put the averages into the network."""
        for weight, average in zip(self.weights, self.shadow, strict=True):
            weight.copy_(average)
