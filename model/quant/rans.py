"""Asymmetric numeral systems for rounded matrices, on tables that adapt to rows, columns and what came before.

What is left to gain over the entropy of single values is that a matrix's columns (and, without SDClip, its rows) have
sizes of their own: neurons that a down projection hardly uses, dimensions of an embedding. So every row r and column c
is sent with its size, in eighths of an octave, as exactly as pays, and q[r, c] has the table of the size r + c. Tables
are counts: of this matrix so far, of those before it (at most ``TRUST`` of them), and at first of a bell curve. They
are whole numbers, and the curve takes nothing but IEEE's + * /, so that every machine reads what any machine wrote.
The coder is constriction's (Bamler 2022, arXiv:2201.01741); it is a stack, so what is read first is written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Sizes = NDArray[np.float64]
Code = Callable[[Ints, int, Ints | None], Ints]
"""(weights of the symbols 0 .., how many come, which ones if that is known) -> which ones."""

SIZE_STEPS = 8
"""Of the sizes of rows and columns, per octave."""
SIDE = 64
"""Rows and columns are so many steps larger or smaller than their matrix at most."""
LEVELS = 72
"""Tables, each for a quarter of an octave of mean |q| from 2^-8 on."""
SMALLEST = 8
"""Octaves of the first table below 1."""
TRUST = 1024
"""Earlier matrices count as at most so many values of this one, for each table."""
FIRST_BLOCK, LAST_BLOCK, SIDE_BLOCK = 1024, 131_072, 64
"""Counts are brought up to date after so many values; the blocks of a matrix double."""
GAIN = 0.01
"""Bits that a value costs more for each square of a step that its size is off: (ln 2 / SIZE_STEPS)^2 / ln 2."""


class Tables:
    """Counts by level and value; encoder and decoder take them through the same states."""

    def __init__(self) -> None:
        self.all = np.stack([bell(level) for level in range(LEVELS)])
        self.own = np.zeros_like(self.all)
        self.sides = [1 + 1024 // (1 + np.arange(-SIDE, SIDE + 1, dtype=np.int64) ** 2) for _ in range(2)]

    def weights(self, level: int, top: int) -> Ints:
        """Of the values -top..top."""
        kept = slice(128 - top, 129 + top)
        known = self.all[level, kept]
        total = max(int(known.sum()), 1)
        weights = 64 * self.own[level, kept] + 64 * min(total, TRUST) * known // total
        for _ in range(level // 4 - SMALLEST - 1):  # of large values each is rare, and like its neighbours
            sides = np.concatenate((weights[:1], weights[:-1])) + np.concatenate((weights[1:], weights[-1:]))
            weights = (2 * weights + sides) // 4
        return weights + 1

    def note(self, levels: NDArray[np.uint8], values: Ints) -> None:
        """These values of the present matrix have become known."""
        at = levels.astype(np.int64) * 257 + values + 128
        self.own += np.bincount(at, minlength=LEVELS * 257).reshape(LEVELS, 257)

    def close(self) -> None:
        """The matrix ends; the next one may have its signs the other way round."""
        self.all += self.own + self.own[:, ::-1]
        self.own[:] = 0


def bell(level: int) -> Ints:
    """256 counts or so of -128..128 with about the level's mean |q|."""
    quarter = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)[level % 4]
    width = quarter * 2.0 ** (level // 4 - SMALLEST)
    x = 1 + np.arange(-128, 129, dtype=np.float64) ** 2 / (24 * width * width + 0.001)
    x = x * x
    x = x * x
    x = x * x
    weights = (1_000_000 / x).astype(np.int64)
    return 256 * weights // int(weights.sum())


def walk(tables: Tables, shape: Sequence[int], code: Code, q: Ints | None = None) -> Ints:
    """One matrix through ``code``: ``q`` is written; without it, it is read."""
    rows, columns = shape
    even = np.ones(256, dtype=np.int64)
    sizes = (None, None) if q is None else sizes_of(q)
    top = min(128, max(1, int(code(even, 1, None if q is None else np.abs(q).max(keepdims=True)[0])[0])))
    row = walk_side(tables.sides[0], rows, columns, code, sizes[0])
    column = walk_side(tables.sides[1], columns, rows, code, sizes[1])
    base = int(code(even, 1, None if q is None else base_of(q, row, column))[0])
    levels = np.clip((base + row[:, None] + column) // 2, 0, LEVELS - 1).astype(np.uint8).reshape(-1)
    found = np.empty(rows * columns, dtype=np.int64) if q is None else q.reshape(-1)
    start, size = 0, FIRST_BLOCK
    while start < len(found):
        here, values = levels[start : start + size], found[start : start + size]
        order, ends = np.argsort(here, kind="stable"), np.cumsum(np.bincount(here, minlength=LEVELS))
        for level in np.unique(here).tolist():
            at = order[ends[level - 1] if level else 0 : ends[level]]
            symbols = None if q is None else values[at] + top
            values[at] = code(tables.weights(level, top), len(at), symbols) - top
        tables.note(here, values)
        start, size = start + size, min(2 * size, LAST_BLOCK)
    tables.close()
    return found.reshape(rows, columns)


def walk_side(weights: Ints, count: int, values: int, code: Code, sizes: Sizes | None) -> Ints:
    """The steps of ``count`` rows or columns of so many ``values`` each, with ``weights``, which learn from them."""
    steps = np.arange(-SIDE, SIDE + 1)
    blocks = []
    for start in range(0, count, SIDE_BLOCK):
        symbols = None
        if sizes is not None:  # the fewest bits: those of the step, and those that a wrong size costs
            off = sizes[start : start + SIDE_BLOCK, None] - steps
            symbols = np.argmin(GAIN * values * off * off - np.log2(weights / weights.sum()), axis=1)
        found = code(weights, min(SIDE_BLOCK, count - start), symbols)
        seen = np.bincount(found, minlength=len(weights))
        weights += 64 * seen
        weights[1:] += 8 * seen[:-1]
        weights[:-1] += 8 * seen[1:]
        blocks.append(found - SIDE)
    weights[:] = weights * 8192 // max(8192, int(weights.sum())) + 1
    return np.concatenate(blocks)


def sizes_of(q: Ints) -> tuple[Sizes, Sizes]:
    """How much larger than usual each row and each column is, in steps: log2 of mean |q|, the other's size removed."""
    sizes = np.abs(q).astype(np.float32)
    rows, columns = q.shape
    row, column, usual = np.zeros(rows), np.zeros(columns), float(sizes.mean()) + 1e-6
    for _ in range(4):
        row = np.log2((sizes @ (2.0**-column).astype(np.float32) + 0.25) / (columns * usual))
        row -= row.mean()
        column = np.log2(((2.0**-row).astype(np.float32) @ sizes + 0.25) / (rows * usual))
        middle = float(np.median(column))
        column, usual = column - middle, usual * 2.0**middle
    return SIZE_STEPS * row, SIZE_STEPS * column


def base_of(q: Ints, row: Ints, column: Ints) -> Ints:
    """What makes the levels right on average, in steps, as a symbol (1,)."""
    scaled = (2.0 ** (-row / SIZE_STEPS)) @ np.abs(q).astype(np.float32) @ (2.0 ** (-column / SIZE_STEPS))
    return (
        np.clip(np.rint(SIZE_STEPS * (SMALLEST + np.log2(scaled / q.size + 1e-6))), 0, 255).astype(np.int64).reshape(1)
    )


def encode_matrices(matrices: Iterable[Ints]) -> bytes:
    """The ANS words of integer matrices (O, I) in -127..127, in order."""
    from constriction import stream  # a machine that only trains may not have it

    jobs: list[tuple[Ints, Ints]] = []

    def write(weights: Ints, count: int, symbols: Ints | None) -> Ints:
        assert symbols is not None
        jobs.append((symbols, weights.copy()))
        return symbols

    tables = Tables()
    for q in matrices:
        walk(tables, q.shape, write, q)
    coder = stream.stack.AnsCoder()
    for symbols, weights in reversed(jobs):
        coder.encode_reverse(
            symbols.astype(np.int32), stream.model.Categorical(weights.astype(np.float64), perfect=False)
        )
    return coder.get_compressed().astype("<u4").tobytes()


def decode_matrices(words: bytes, shapes: Iterable[Sequence[int]]) -> list[Ints]:
    """The inverse of :func:`encode_matrices`.

    Raises:
        ValueError: the words are not what was written for these shapes.
    """
    from constriction import stream

    coder = stream.stack.AnsCoder(np.frombuffer(words, dtype="<u4").astype(np.uint32))

    def read(weights: Ints, count: int, _: Ints | None) -> Ints:
        return coder.decode(stream.model.Categorical(weights.astype(np.float64), perfect=False), count).astype(np.int64)

    tables = Tables()
    matrices = [walk(tables, shape, read) for shape in shapes]
    if not coder.is_empty():
        raise ValueError("the coded matrices don't end where their words do")
    return matrices
