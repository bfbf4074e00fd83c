"""Muon-TTT (openai/parameter-golf #1135, #1176): a step of one size in all directions, without state.

W -= lr NS5(g) for each tensor of two or more dims, the embedding and the (2, D) mixes among them, with no factor for
the shape; 1-D parameters take plain SGD.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from model.optim.muon import orthogonalise


@dataclass(frozen=True, kw_only=True, slots=True)
class MuonRule:
    """TTT_MUON with TTT_MOMENTUM 0."""

    iterations: int = 5
    """Newton-Schulz iterations (TTT_NS_STEPS)."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"rule.iterations must be 1 or more, got {self.iterations}")

    def optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser that remembers nothing."""
        return StatelessMuon(parameters, iterations=self.iterations)


class StatelessMuon(torch.optim.Optimizer):
    """One step from the gradients alone; matrices of one shape go through Newton-Schulz as one batch."""

    def __init__(self, parameters: Iterable[Tensor], *, iterations: int) -> None:
        ordered = sorted(parameters, key=lambda w: tuple(w.shape))
        super().__init__(ordered, {"lr": 0.0})
        self.iterations = iterations

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients in place."""
        for group in self.param_groups:
            with_gradient = [w for w in group["params"] if w.grad is not None]
            for shape, same in groupby(with_gradient, key=lambda w: tuple(w.shape)):
                weights = list(same)
                gradients = torch.stack([w.grad for w in weights])
                if len(shape) > 1:
                    gradients = orthogonalise(gradients, self.iterations)
                for weight, gradient in zip(weights, gradients.unbind(), strict=True):
                    weight.add_(gradient, alpha=-group["lr"])
