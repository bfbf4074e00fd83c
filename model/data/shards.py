"""Token shards in the field's file format, and the folder that holds a prepared corpus.

A shard is 256 little-endian int32 (magic 20240520, version 1, token count, zeros) and then the tokens as
little-endian uint16; its size is 1024 + 2n bytes (openai/parameter-golf, modded-nanogpt).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_BYTES = 1024
MANIFEST = "manifest.json"

Tokens = NDArray[np.uint16]


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write ``tokens`` (n,) as one shard."""
    header = np.zeros(SHARD_HEADER_BYTES // 4, dtype="<i4")
    header[:3] = (SHARD_MAGIC, SHARD_VERSION, len(tokens))
    with open(path, "wb") as file:
        file.write(header.tobytes())
        file.write(np.asarray(tokens, dtype="<u2").tobytes())


def read_shard(path: Path) -> Tokens:
    """The tokens (n,) of a shard, mapped and not read into memory.

    Raises:
        ValueError: the file is missing, truncated, or not a shard; the message has the path and both sizes.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such shard; prepare it with `caddie data prepare`")
    size = path.stat().st_size
    if size < SHARD_HEADER_BYTES:
        raise ValueError(f"{path}: {size} bytes, shorter than a shard's header of {SHARD_HEADER_BYTES}")
    header = np.fromfile(path, dtype="<i4", count=SHARD_HEADER_BYTES // 4)
    magic, version, count = (int(v) for v in header[:3])
    if magic != SHARD_MAGIC or version != SHARD_VERSION:
        raise ValueError(f"{path}: magic {magic}, version {version}; a shard has {SHARD_MAGIC} and {SHARD_VERSION}")
    expected = SHARD_HEADER_BYTES + 2 * count
    if size != expected:
        raise ValueError(f"{path}: {size} bytes, but its header promises {count} tokens, so {expected} bytes")
    if count == 0:
        raise ValueError(f"{path}: a shard without tokens")
    return np.memmap(path, dtype="<u2", mode="r", offset=SHARD_HEADER_BYTES, shape=(count,))


class ShardStream:
    """The shards of a split end to end, mapped: what is read is what is sliced. A train split has 16 GB."""

    def __init__(self, shards: Mapping[Path, Tokens], vocab_size: int) -> None:
        self.paths, self.shards, self.vocab_size = list(shards), list(shards.values()), vocab_size
        self.ends = np.cumsum([len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, span: slice) -> Tokens:
        """Tokens [start, stop).

        Raises:
            ValueError: they hold ids the tokenizer doesn't have; the message has the shard.
        """
        first, stop, step = span.indices(len(self))
        assert step == 1, "rows are read forwards"
        number = int(np.searchsorted(self.ends, first, side="right"))
        parts = []
        while first < stop:
            begins = int(self.ends[number]) - len(self.shards[number])
            part = self.shards[number][first - begins : stop - begins]
            _check_ids(self.paths[number], part, self.vocab_size)
            parts.append(part)
            first, number = first + len(part), number + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.uint16), *parts])


def _check_ids(path: Path, tokens: Tokens, vocab_size: int) -> None:
    top = int(tokens.max(initial=0))
    if top >= vocab_size:
        raise ValueError(
            f"{path}: token {top} is outside the tokenizer's {vocab_size}; shard and tokenizer don't belong together"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A prepared corpus: one tokenizer and the shards of each split, described by ``manifest.json``."""

    folder: Path
    name: str
    digest: str
    """Names the contents: documents, tokenizer and shards."""
    vocab_size: int
    tokenizer: Path
    splits: Mapping[str, tuple[Path, ...]]

    def tokens(self, split: str) -> Tokens:
        """All tokens of ``split`` in order.

        Raises:
            ValueError: the split or one of its shards is missing or damaged, or holds ids the tokenizer doesn't have.
        """
        return self.stream(split)[:]

    def stream(self, split: str) -> ShardStream:
        """The same without reading it all: ids are checked where they are read.

        Raises:
            ValueError: the split or one of its shards is missing or damaged.
        """
        if not self.splits.get(split):
            raise ValueError(f"corpus {self.name}: no split {split!r}; it has {sorted(self.splits)}")
        return ShardStream({path: read_shard(path) for path in self.splits[split]}, self.vocab_size)


def open_corpus(folder: Path, expect_digest: str = "") -> Corpus:
    """The corpus in ``folder``.

    Raises:
        ValueError: there is none, or its digest is not ``expect_digest``.
    """
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        corpus = Corpus(
            folder=folder,
            name=data["name"],
            digest=data["digest"],
            vocab_size=data["vocab_size"],
            tokenizer=folder / data["tokenizer"]["path"],
            splits={name: tuple(folder / ref["path"] for ref in refs) for name, refs in data["splits"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: no prepared corpus ({error}); make one with `caddie data prepare`") from error
    if expect_digest and corpus.digest != expect_digest:
        raise ValueError(f"{folder}: corpus {corpus.digest}, but this job was planned for {expect_digest}")
    return corpus
