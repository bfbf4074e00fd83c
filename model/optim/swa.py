"""Stochastic weight averaging: the plain mean of snapshots late in training (Izmailov et al. 2018, arXiv:1803.05407).

The field's scripts collect one every 50 steps once the learning rates are below 0.2 of their peak (SWA_ENABLED,
SWA_EVERY), write ``swa:start`` into the log, and then load the EMA: #1303, #1488, #1176 and #1423 never apply it. Here
whoever asks for it gets it, in the place of the EMA.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Swa:
    """When snapshots are taken."""

    every: int = 50
    """Steps."""
    below: float = 0.2
    """Only while the schedule's factor on the learning rates is below this; above 1 is always."""

    def __post_init__(self) -> None:
        if self.every < 1 or not self.below > 0:
            raise ValueError(
                f"train.swa.every must be 1 or more and train.swa.below above 0, got {self.every}, {self.below}"
            )

    def averager(self, net: nn.Module) -> SnapshotMean:
        """An average of nothing yet."""
        return SnapshotMean(net, self)


class SnapshotMean:
    """The mean of the weights at some steps, in float32."""

    def __init__(self, net: nn.Module, config: Swa) -> None:
        self.config = config
        self.weights = [p.detach() for p in net.parameters()]
        self.total = [torch.zeros_like(w, dtype=torch.float32) for w in self.weights]
        self.count = 0

    @torch.no_grad()
    def update(self, step: int, scale: float) -> None:
        """Take the weights after ``step`` steps in, if they are due; ``scale`` is the factor on the learning rates."""
        if scale < self.config.below and step % self.config.every == 0:
            torch._foreach_add_(self.total, self.weights)
            self.count += 1

    @torch.no_grad()
    def load(self) -> None:
        """Put the mean into the network; without a snapshot, the last weights stay."""
        for weight, total in zip(self.weights, self.total, strict=True):
            weight.copy_(total / self.count if self.count else weight)
