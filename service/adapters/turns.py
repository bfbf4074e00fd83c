"""Who goes next when more gangs want to run than the cluster holds: the earliest kind of stage first.

Ray retries waiting placement groups with growing pauses, so that late ones overtake early ones: a training that waits
behind quick scores leaves cores idle at the end. So no more groups are asked for than fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Callable


class Turns:
    """At most ``capacity()`` holders at once; waiting ones are let in by priority, then by arrival."""

    def __init__(self, capacity: Callable[[], int]) -> None:
        self.capacity = capacity
        """Asked again whenever somebody comes or goes: clusters grow and shrink."""
        self.held = 0
        self.waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self.arrivals = itertools.count()

    @contextlib.asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Hold a place while the block runs; a lower ``priority`` goes first."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, (priority, next(self.arrivals), ticket))
        self._admit()
        try:
            await ticket
            yield
        finally:
            if ticket.done() and not ticket.cancelled():
                self.held -= 1
            self._admit()

    def _admit(self) -> None:
        places = max(1, self.capacity())
        while self.waiting and (self.waiting[0][2].cancelled() or self.held < places):
            _, _, ticket = heapq.heappop(self.waiting)
            if not ticket.cancelled():
                self.held += 1
                ticket.set_result(None)
