"""A rank's sign of life: a small file that changes with every step, for a watchdog outside the gang.

Beats come from the loops that do the work and never from a thread of their own: a rank that hangs in a collective must
fall silent. One write into the page cache, no network.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BEAT = "beat"
"""``beat.<rank>`` in the folder of a try: how many beats there were, and the stage's own clock in seconds."""


class Pulse:
    """Beats of one rank."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.file = os.open(folder / f"{BEAT}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.beats, self.started = 0, time.perf_counter()
        self.beat()

    def beat(self, own_s: float | None = None) -> None:
        """One more; ``own_s`` is the stage's own clock where it has one, else the time since the first beat."""
        self.beats += 1
        shown_s = time.perf_counter() - self.started if own_s is None else own_s
        # Of one length, so that a reader never sees the end of an older, longer line.
        os.pwrite(self.file, f"{self.beats:12d} {shown_s:15.3f}\n".encode(), 0)


def read_beat(text: str) -> tuple[int, float] | None:
    """Beats and own clock; None for what isn't a whole line."""
    words = text.split()
    return (int(words[0]), float(words[1])) if len(words) == 2 and text.endswith("\n") else None
