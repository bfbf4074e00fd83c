"""AdamW (Loshchilov & Hutter 2019), the update of adaptation before packing (openai/parameter-golf #1364, #1423)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.overlay import check_finite_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamRule:
    """torch's defaults but for the weight decay, which the field sets to 0."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_finite_fields(self, "rule")
        if not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise ValueError(f"rule: betas must be in [0, 1), got {self.beta1}, {self.beta2}")
        if self.eps <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"rule.eps must be above 0 and rule.weight_decay 0 or more, got {self.eps} and {self.weight_decay}"
            )

    def optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """torch's AdamW; its moments live for the whole pass."""
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(parameters, lr=0.0, betas=betas, eps=self.eps, weight_decay=self.weight_decay)
