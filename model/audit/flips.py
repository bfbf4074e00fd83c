"""Which part of the stream is audited, and which of its tokens are changed: the places where leaks have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.gang import Gang
from model.score.stream import Stream
from model.score.windows import Window, WindowConfig

RANDOM_PLACES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamFlip:
    """Token ``token`` becomes another one; with ``to_the_end``, so does every token after it."""

    token: int
    to_the_end: bool = False

    def of(self, stream: Stream) -> Stream:
        """The changed stream; new tokens are drawn from the stream's own, so that all are valid."""
        tokens = stream.tokens.copy()
        known = np.unique(tokens)
        dice = np.random.default_rng(self.token)
        if self.to_the_end:
            tokens[self.token :] = dice.permutation(np.resize(known, len(tokens) - self.token))
        others = known[known != stream.tokens[self.token]]
        tokens[self.token] = dice.choice(others) if len(others) else 1 - min(1, int(tokens[self.token]))
        return Stream(tokens=tokens)


def audited_part(stream: Stream, windows: WindowConfig, batches: int) -> Stream:
    """The first tokens of ``stream``: the first window, so many whole batches, and a shorter last window."""
    targets = windows.seq_len + batches * windows.batch_seqs * windows.stride + windows.stride // 3
    return Stream(tokens=np.array(stream.tokens[: targets + 1]))


def flips_of(stream: Stream, windows: WindowConfig) -> list[StreamFlip]:
    """Flips by what they can find, best first: time may end the list early.

    Target i is token i + 1. A token just scored is context of the windows that follow it in the same batch, and the
    first scored one is what a mask that is off by one lets in.
    """
    batches = list(windows.batches(stream.targets, Gang()))
    full = max(batches, key=len)
    early, middle, late = full[len(full) // 4], full[len(full) // 2], full[-1]
    first, tail = batches[0][0], batches[-1][-1]
    places = [
        *(last(middle), opening(middle), centre(middle), last(early), centre(first), centre(late)),
        *(opening(tail), last(first), last(late), opening(full[0]), last(tail), opening(first), centre(tail)),
    ]
    dice = np.random.default_rng(stream.targets)
    places += (1 + dice.choice(stream.targets, min(RANDOM_PLACES, stream.targets), replace=False)).tolist()
    distinct = list(dict.fromkeys(places))
    # The first kinds alternate, so that a list that is cut short has both.
    order = [StreamFlip(token=token, to_the_end=rank % 3 == 2) for rank, token in enumerate(distinct)]
    return order + [StreamFlip(token=flip.token, to_the_end=not flip.to_the_end) for flip in order]


def opening(window: Window) -> int:
    """The first token that ``window`` scores."""
    return window.scored + 1


def centre(window: Window) -> int:
    """The one in the middle."""
    return (window.scored + window.stop + 1) // 2


def last(window: Window) -> int:
    """The last one."""
    return window.stop
