"""Depth recurrence: a few middle layers run several times (openai/parameter-golf #1204, #1394, #1493).

The order is 0 .. first-1, then loops + 1 times first .. last, then the rest; its first half saves skips for the second.
In training it begins at ``start`` of the clock (or steps) and every layer runs once before; whatever scores runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from model.net.parts import NetShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrence:
    """Defaults of #1394; #1493 loops 3 to 5 from 0.35 on."""

    first: int = 4
    """LOOP_START."""
    last: int = 5
    """LOOP_END, inclusive."""
    loops: int = 2
    """NUM_LOOPS: so many times more than once."""
    start: float = 0.5
    """ENABLE_LOOPING_AT, a fraction of the training; 0 loops from the beginning."""

    def check(self, net: NetShape) -> None:
        """Refuse layers that aren't there.

        Raises:
            ValueError: with the values.
        """
        if not 0 <= self.first <= self.last < net.layers:
            raise ValueError(
                f"net.recurrence: first and last must be layers, in order, of net.layers={net.layers} from 0, "
                f"got {self.first} and {self.last}"
            )
        if self.loops < 1 or not 0 <= self.start <= 1:
            raise ValueError(
                f"net.recurrence.loops must be 1 or more and net.recurrence.start in [0, 1], "
                f"got {self.loops} and {self.start}"
            )

    def shrunk(self, layers: int) -> Self:
        """The layer in the middle, if its own lie behind it."""
        return self if self.last <= layers // 2 else replace(self, first=layers // 2, last=layers // 2)

    def order(self, layers: int) -> tuple[int, ...]:
        """The layers as they run."""
        again = tuple(range(self.first, self.last + 1)) * (self.loops + 1)
        return (*range(self.first), *again, *range(self.last + 1, layers))
