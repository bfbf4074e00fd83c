"""What an update rule is: a config that makes an optimiser for the weights that adapt."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class Rule(Protocol):
    """How a gradient moves the weights; the learning rate is set before each step by who calls it."""

    def optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimiser over ``parameters``; its groups take the rate as ``lr``."""
