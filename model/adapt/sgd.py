"""SGD with momentum, the update of the first legal test-time training (openai/parameter-golf #461, #549, #1413)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdRule:
    """buf = momentum buf + g; W -= lr buf. The buffer lives for the whole pass, as in #549."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"rule.momentum must be in [0, 1), got {self.momentum}")

    def optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """torch's SGD."""
        return torch.optim.SGD(parameters, lr=0.0, momentum=self.momentum)
