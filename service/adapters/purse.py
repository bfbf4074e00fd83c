"""A budget inside the broker: stages wait for money that running ones may give back, and are refused when none will."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.errors import BudgetSpent
from service.money import Ledger, gpu_hours
from service.stages import PlannedStage


class Purse:
    """A ledger, or none, for coroutines of one event loop."""

    def __init__(self, ledger: Ledger | None) -> None:
        self.ledger = ledger
        self._changed = asyncio.Event()

    async def reserve(self, planned: PlannedStage) -> None:
        """Set aside what a stage is expected to take; where the plan didn't know it what its kind does, else its
        deadline.

        Raises:
            BudgetSpent: it can't be paid, whatever becomes of the running stages.
        """
        if self.ledger is None:
            return
        unknown = self.ledger.typical.get(str(planned.stage), gpu_hours(planned.gang, planned.deadline_s))
        try:
            while not self.ledger.reserve(planned.key, unknown):
                self._changed.clear()
                await self._changed.wait()
        except BudgetSpent as error:
            raise BudgetSpent(f"stage {planned.stage} of seed {planned.seed} was {error}") from error

    def settle(self, group: Sequence[PlannedStage], gang_s: float) -> None:
        """Charge stages with the time of the gang that they shared."""
        for planned in group:
            if self.ledger:
                self.ledger.settle(planned.key, gpu_hours(planned.gang, gang_s / len(group)))
        self._changed.set()

    def release(self, planned: PlannedStage) -> None:
        """Give back what is still reserved for a stage: it took nothing."""
        if self.ledger:
            self.ledger.release(planned.key)
        self._changed.set()
