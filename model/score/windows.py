"""Which windows are scored, and which of their positions count: every target of the stream exactly once.

Windows of T inputs start at 0, S, 2S ... The first scores all its positions, every other one its last S; the last
window may be shorter, so that the tail is scored once and not 31 times (the field's older scripts list windows up to
the end of the stream: openai/parameter-golf before #1394).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from model.gang import Gang


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Inputs [start, stop) of the stream; the targets of inputs [scored, stop) count. Targets are one further on."""

    start: int
    scored: int
    stop: int

    @property
    def context(self) -> int:
        """Positions before the scored ones."""
        return self.scored - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """EVAL_SEQ_LEN, EVAL_STRIDE and the windows of a batch."""

    seq_len: int = 2048
    stride: int = 64
    batch_seqs: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.seq_len:
            raise ValueError(
                f"score.windows.stride must be 1 to seq_len={self.seq_len}, got {self.stride}: "
                "a longer one would leave tokens unscored"
            )
        if self.batch_seqs < 1:
            raise ValueError(f"score.windows.batch_seqs must be 1 or more, got {self.batch_seqs}")

    def plan(self, targets: int) -> list[Window]:
        """The windows over a stream of ``targets`` predictions.

        Raises:
            ValueError: the stream is empty.
        """
        return self.plan_between(targets, 0, targets)

    def plan_between(self, targets: int, first: int, stop: int) -> list[Window]:
        """Those windows whose first scored position is in [first, stop)."""
        if targets < 1:
            raise ValueError("the validation split has no token to predict")
        windows = [Window(start=0, scored=0, stop=min(self.seq_len, targets))] if first <= 0 < stop else []
        strides = max(0, -(-(first - self.seq_len) // self.stride))
        for scored in range(self.seq_len + strides * self.stride, min(stop, targets), self.stride):
            start, end = scored + self.stride - self.seq_len, min(scored + self.stride, targets)
            windows.append(Window(start=start, scored=scored, stop=end))
        return windows

    def part(self, first: int, stop: int) -> WindowPart:
        """The same windows, but only those whose first scored position is in [first, stop)."""
        return WindowPart(
            seq_len=self.seq_len, stride=self.stride, batch_seqs=self.batch_seqs, first=first, before=stop
        )

    def batches(self, targets: int, gang: Gang) -> Iterator[list[Window]]:
        """This rank's batches, as :meth:`numbered_batches` has them."""
        return (batch for _, batch in self.numbered_batches(targets, gang))

    def numbered_batches(self, targets: int, gang: Gang) -> Iterator[tuple[int, list[Window]]]:
        """This rank's batches with their numbers. A batch holds windows of one shape and is the same for every world
        size: ranks take whole batches in turn, and so get the same sums. (The field's first batch is window 0 with 31
        others, N = 4,032 for SLOT's loss; ours begins after window 0, so a batch's neighbours differ by one window.)"""
        shapes = groupby(self.plan(targets), key=lambda w: (w.stop - w.start, w.context))
        everything = [
            group[i : i + self.batch_seqs]
            for group in (list(same) for _, same in shapes)
            for i in range(0, len(group), self.batch_seqs)
        ]
        yield from list(enumerate(everything))[gang.rank :: gang.world]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPart(WindowConfig):
    """A stretch of the windows, for a scorer that is to score no more; never part of a config."""

    first: int
    before: int

    def plan(self, targets: int) -> list[Window]:
        """The windows whose first scored position is in [first, before)."""
        return self.plan_between(targets, self.first, self.before)
