"""What computing costs: GPU-hours, dollars, and a ledger that launches nothing it can't pay.

A rank is a GPU of a node. A CPU rank counts like one, so that a rehearsal on CPU is charged like what it rehearses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.errors import BudgetSpent, SpecError
from service.spec import GangShape

RANKS_PER_NODE = 8
NODE_USD_PER_HOUR = 20.0
"""Of a node with 8 H100 SXM, as openai/parameter-golf's README and its #82 say: 20 to 21.52."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What a node costs; a gang pays for its ranks' share of it."""

    node_usd_per_hour: float = NODE_USD_PER_HOUR

    def __post_init__(self) -> None:
        if not (math.isfinite(self.node_usd_per_hour) and self.node_usd_per_hour > 0):
            raise SpecError(f"the price of a node-hour is above 0 USD, got {self.node_usd_per_hour}")

    def usd(self, gpu_hours: float) -> float:
        """Dollars of GPU-hours."""
        return gpu_hours * self.node_usd_per_hour / RANKS_PER_NODE

    def gpu_hours(self, usd: float) -> float:
        """GPU-hours that dollars buy."""
        return usd * RANKS_PER_NODE / self.node_usd_per_hour

    def show(self, gpu_hours: float) -> str:
        """``24.0 GPU-h (60.00 USD)``."""
        return f"{gpu_hours:.3g} GPU-h ({self.usd(gpu_hours):.2f} USD)"


def gpu_hours(gang: GangShape, seconds: float) -> float:
    """GPU-hours of a gang that is held for ``seconds``."""
    return gang.ranks * seconds / 3600


def parse_budget(text: str, price: Price) -> float:
    """``60usd`` or ``3h`` (GPU-hours) in GPU-hours.

    Raises:
        SpecError: it is neither, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(usd|h)", text.strip().lower())
    if not found or not float(found[1]):
        raise SpecError(f"--budget {text!r}: write dollars as 60usd or GPU-hours as 3h, above 0")
    return price.gpu_hours(float(found[1])) if found[2] == "usd" else float(found[1])


@dataclass(kw_only=True, slots=True)
class Ledger:
    """A budget while it is spent. A stage is reserved for before it is launched, and settled with what it took.

    What is counted: the time of the gangs that this command launches, failed tries included. What isn't: stages that
    were finished before, or that another command computes; waiting for a gang; audits. Nothing of it outlives the
    command: the next one begins with its own budget and finds what was finished.
    """

    limit: float
    """GPU-hours."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """Stage key -> GPU-hours that the plan expects."""
    typical: Mapping[str, float] = field(default_factory=dict)
    """Kind of stage -> GPU-hours, of stages that the plan doesn't know yet."""
    price: Price = Price()
    spent: float = 0.0
    """GPU-hours settled."""
    reserved: dict[str, float] = field(default_factory=dict)
    """Stage key -> GPU-hours of what is launched and not settled."""
    refused: dict[str, float] = field(default_factory=dict)
    """Stage key -> GPU-hours of what was not launched."""

    def reserve(self, key: str, gpu_hours: float) -> bool:
        """Set aside ``gpu_hours``; False when they would fit only if running stages turn out cheaper.

        Raises:
            BudgetSpent: they don't fit, whatever becomes of the running stages.
        """
        wanted = self.expected.get(key, gpu_hours)
        if self.spent + sum(self.reserved.values()) + wanted <= self.limit * (1 + 1e-9):
            self.reserved[key] = wanted
            return True
        if self.reserved and self.spent + wanted <= self.limit:
            return False
        self.refused[key] = wanted
        raise BudgetSpent(
            f"not launched: it needs {self.price.show(wanted)}, but of the budget of {self.price.show(self.limit)} "
            f"{self.price.show(max(0.0, self.limit - self.spent))} are left"
        )

    def settle(self, key: str, gpu_hours: float) -> None:
        """Charge what a stage took in place of what was reserved for it."""
        self.reserved.pop(key, None)
        self.spent += gpu_hours

    def release(self, key: str) -> None:
        """Give back what was reserved for a stage that took nothing."""
        self.reserved.pop(key, None)

    def story(self) -> str:
        """One line of how it ended."""
        text = f"budget: {self.price.show(self.spent)} of {self.price.show(self.limit)} spent"
        return f"{text}; {len(self.refused)} not launched for want of it" if self.refused else text
