"""In which order the rows of a stream are trained on, as a pure function of a place in the run: nothing to save, and a
run goes on at any step.

* ``sequential``: as they lie, the loader of openai/parameter-golf #1303.
* ``shuffled``: a new permutation each epoch, by a keyed Feistel network over the rows' numbers (Black and Rogaway
  2002), so that no table of them is held and no library's generator decides. #1394 draws its rows at random, too.
* ``coprime``: steps of a stride that has no common divisor with the number of rows, another one each epoch, so that a
  batch comes from everywhere (the idea of #726 and #1176's loader, which strides within shards).

Each visits every row once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["sequential", "shuffled", "coprime"]
Places = NDArray[np.uint64]

FEISTEL_ROUNDS = 6
MASK_64 = (1 << 64) - 1


def rows_at(order: Order, places: Places, rows: int, seed: int) -> Places:
    """The rows of the stream, each in [0, rows), that are trained on at ``places`` (n,) of the run, counted from 0."""
    found = np.empty_like(places)
    epochs = places // np.uint64(rows)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = ORDERS[order](places[here] - epoch * np.uint64(rows), rows, mixed(seed, int(epoch)))
    return found


def mixed(*numbers: int) -> int:
    """64 bits that depend on every bit of ``numbers`` and on their order, by splitmix64 (Steele et al. 2014)."""
    state = 0
    for number in numbers:
        state = (state + (number & MASK_64) + 0x9E3779B97F4A7C15) & MASK_64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK_64
        state ^= state >> 31
    return state


def as_they_lie(places: Places, rows: int, key: int) -> Places:
    """``places`` (n,) of one epoch themselves."""
    return places


def shuffled(places: Places, rows: int, key: int) -> Places:
    """Where a permutation of [0, rows), named by ``key``, takes ``places`` (n,)."""
    half = np.uint64(max(1, ((rows - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = [np.uint64(mixed(key, turn)) for turn in range(FEISTEL_ROUNDS)]

    def permuted(x: Places) -> Places:
        left, right = x >> half, x & low
        for one in keys:
            left, right = right, left ^ (scrambled(right ^ one) & low)
        return (left << half) | right

    found = permuted(places)
    while (outside := found >= np.uint64(rows)).any():  # a permutation of up to 4 times as many: walk on until inside
        found[outside] = permuted(found[outside])
    return found


def scrambled(x: Places) -> Places:
    """splitmix64's finish of each number; products wrap around."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def strided(places: Places, rows: int, key: int) -> Places:
    """``places`` (n,) times a stride that is coprime to ``rows``, from a start; both named by ``key``.

    The stride lies between a quarter and half of the rows where there is one, so that neighbours lie far apart.
    """
    stride = rows // 4 + mixed(key, 1) % max(1, rows // 4)
    while math.gcd(stride, rows) != 1:
        stride += 1
    return (places * np.uint64(stride) + np.uint64(mixed(key, 2) % rows)) % np.uint64(rows)


ORDERS: Mapping[str, Callable[[Places, int, int], Places]] = {
    "sequential": as_they_lie,
    "shuffled": shuffled,
    "coprime": strided,
}
