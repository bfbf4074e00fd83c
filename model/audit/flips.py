"""Which part of the stream is audited, and which of its tokens are changed: the places where leaks have been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.gang import Gang
from model.score.stream import Stream
from model.score.windows import Window, WindowConfig

MOST_FLIPS = 120
"""Where also a scorer that costs nothing is done."""
NEEDED = {"gained": 3, "certain": 2, "repeated": 3, "random": 3}
"""Places that are always changed of a kind; 1 of every other."""
OF_A_KIND = 8
"""Places at most of one kind of content."""
LONGEST_REPEAT = 6


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


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipPlan:
    """What to change, best first."""

    flips: list[StreamFlip]
    needed: int
    """So many of the first are done whatever they cost: they have a place of every kind."""
    kinds: Mapping[str, list[int]]
    """The tokens of each kind of place that the stream has."""


def audited_part(stream: Stream, windows: WindowConfig, batches: int) -> Stream:
    """The first tokens of ``stream``: the first window, so many whole batches, and a shorter last window."""
    targets = windows.seq_len + batches * windows.batch_seqs * windows.stride + windows.stride // 3
    return Stream(tokens=np.array(stream.tokens[: targets + 1]))


def flips_of(
    stream: Stream, windows: WindowConfig, losses: NDArray[np.float64], plain: NDArray[np.float64]
) -> FlipPlan:
    """Flips by what they can find: one at least of every kind of place, then more of each, then anywhere.

    ``losses`` are those of the audited pass, ``plain`` those of the network alone, (n,) in nats. A leak of a token's
    own probability shows only where that very token is changed, so a scorer that looks at few of them is met where it
    would: at what it found easier than the network did, and where an n-gram comes again (#1420).
    """
    dice = np.random.default_rng(stream.targets)
    anywhere: list[int] = (1 + dice.permutation(stream.targets)).tolist()
    kinds = by_window(stream, windows) | by_content(stream, losses, plain, dice) | {"random": anywhere[:OF_A_KIND]}
    kinds = {kind: places for kind, places in kinds.items() if places}
    needed = dict.fromkeys(token for kind, places in kinds.items() for token in places[: NEEDED.get(kind, 1)])
    more = dict.fromkeys(token for places in kinds.values() for token in places)
    first = _alternating(list(needed))
    rest = _alternating([token for token in more if token not in needed])
    often = _alternating([token for token in anywhere if token not in more])
    other = [StreamFlip(token=flip.token, to_the_end=not flip.to_the_end) for flip in first + rest + often]
    whole = first + rest + other[: len(first)] + often + other[len(first) :]
    return FlipPlan(flips=whole[:MOST_FLIPS], needed=len(first), kinds=kinds)


def _alternating(places: list[int]) -> list[StreamFlip]:
    """Both ways of changing, so that a list that is cut short has both; token 1 stands for the whole stream."""
    return [StreamFlip(token=token, to_the_end=rank % 3 == 2 or token == 1) for rank, token in enumerate(places)]


def by_window(stream: Stream, windows: WindowConfig) -> dict[str, list[int]]:
    """Tokens by where they stand in windows and batches. Target i is token i + 1.

    A token just scored is context of the windows that follow it in the same batch, and the first scored one is what a
    mask that is off by one lets in.
    """
    batches = list(windows.batches(stream.targets, Gang()))
    full = max(batches, key=len)
    early, middle, late = full[len(full) // 4], full[len(full) // 2], full[-1]
    first, tail = batches[0][0], batches[-1][-1]
    return {
        "batch_end": [last(middle), last(early), last(late)],
        "batch_opening": [opening(middle), opening(full[0])],
        "batch_centre": [centre(middle), centre(full[0])],
        "later_window": [centre(late), opening(late)],
        "window_0_opening": [opening(first)],
        "window_0_centre": [centre(first)],
        "window_0_end": [last(first)],
        "tail_opening": [opening(tail)],
        "tail_centre": [centre(tail)],
        "tail_end": [last(tail)],
    }


def by_content(
    stream: Stream, losses: NDArray[np.float64], plain: NDArray[np.float64], dice: np.random.Generator
) -> dict[str, list[int]]:
    """Tokens by what was said of them and by what they are."""
    losses, plain = np.nan_to_num(losses), np.nan_to_num(plain)
    tokens = np.asarray(stream.tokens, dtype=np.int64)
    values, counts = np.unique(tokens[1:], return_counts=True)
    by_count = values[np.lexsort((dice.permutation(len(values)), counts))]
    places = {int(value): int(dice.choice(np.flatnonzero(tokens[1:] == value))) + 1 for value in by_count}
    in_order = [places[int(value)] for value in by_count]
    return {
        "gained": (1 + np.argsort(losses - plain, kind="stable")[:OF_A_KIND]).tolist(),
        "certain": (1 + np.argsort(losses, kind="stable")[:OF_A_KIND]).tolist(),
        "repeated": repeats(tokens, dice),
        "rare": in_order[:OF_A_KIND],
        "frequent": in_order[::-1][:OF_A_KIND],
    }


def repeats(tokens: NDArray[np.int64], dice: np.random.Generator) -> list[int]:
    """Tokens that complete an n-gram that was there before; the lengths from :data:`LONGEST_REPEAT` to 2 in turn."""
    reach = np.zeros(len(tokens), dtype=np.int64)
    listed = tokens.tolist()
    for n in range(2, LONGEST_REPEAT + 1):
        seen: set[tuple[int, ...]] = set()
        for stop in range(n, len(listed) + 1):
            gram = tuple(listed[stop - n : stop])
            if gram in seen:
                reach[stop - 1] = n
            seen.add(gram)
    lengths = range(LONGEST_REPEAT, 1, -1)
    found = [dice.permutation(np.flatnonzero(reach == n)).tolist() for n in lengths]
    turns = max(map(len, found))
    return [places[turn] for turn in range(turns) for places in found if turn < len(places)][: 2 * OF_A_KIND]


def opening(window: Window) -> int:
    """The first token that ``window`` scores."""
    return window.scored + 1


def centre(window: Window) -> int:
    """The one in the middle."""
    return (window.scored + window.stop + 1) // 2


def last(window: Window) -> int:
    """The last one."""
    return window.stop
