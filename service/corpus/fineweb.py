"""The field's own data: FineWeb as token shards with their tokenizers, by variant and number of train shards.

A fetched corpus is a folder ``fineweb-sp1024-8`` below the corpora, with the manifest of a prepared one; as a corpus of
a recipe it goes by that name. Which repository and which commit: ``service/data/fineweb.json``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from model.data.shards import MANIFEST, Corpus, open_corpus, read_shard
from service.errors import CorpusError, SpecError

KNOWN = Path(__file__).parents[1] / "data" / "fineweb.json"
NAME = re.compile(r"fineweb-([a-z0-9]+)-([1-9][0-9]*)")
VAL_SHARDS = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """Where the shards of one tokenizer lie on the hub."""

    name: str
    """``sp1024``: SentencePiece with 1024 pieces."""
    repository: str
    revision: str | None
    """The commit; None where nobody has written one down: then the first fetch decides for all later ones."""
    tokenizer: str
    shards: str

    def paths(self, train_shards: int) -> dict[str, tuple[str, ...]]:
        """Each split's files on the hub."""
        counts = {"train": train_shards, "val": VAL_SHARDS}
        return {
            split: tuple(f"{self.shards}/fineweb_{split}_{i:06d}.bin" for i in range(count))
            for split, count in counts.items()
        }


def variants() -> dict[str, Variant]:
    """All that are known, by name."""
    rows = json.loads(KNOWN.read_text(encoding="utf-8"))
    fields = ("repository", "revision", "tokenizer", "shards")
    return {name: Variant(name=name, **{field: row[field] for field in fields}) for name, row in rows.items()}


def find_variant(name: str) -> Variant:
    """The variant called ``name``.

    Raises:
        SpecError: there is none; the message lists those that there are.
    """
    known = variants()
    if name not in known:
        raise SpecError(f"--variant {name!r}: it is one of {', '.join(known)}")
    return known[name]


def is_fineweb(corpus: str) -> bool:
    """Whether a recipe's corpus is one that is fetched and not prepared."""
    return NAME.fullmatch(corpus) is not None


def how_to_get(corpus: str) -> str:
    """The command that puts a recipe's corpus in its place."""
    match = NAME.fullmatch(corpus)
    return f"caddie data fetch --variant {match[1]} --shards {match[2]}" if match else "caddie data prepare"


def open_fineweb(corpus: str, corpora: Path) -> Corpus:
    """The fetched corpus of that name; sizes and headers are checked, digests only when it is fetched and by nodes.

    Raises:
        CorpusError: it isn't there or is damaged; the message has the command that fetches it.
    """
    command = how_to_get(corpus)
    if not (corpora / corpus / MANIFEST).is_file():
        raise CorpusError(f"corpus {corpus} isn't here: {command}")
    try:
        found = open_corpus(corpora / corpus)
        for paths in found.splits.values():
            for path in paths:
                read_shard(path)
    except ValueError as error:
        raise CorpusError(f"corpus {corpus} is damaged ({error}): {command} fetches what is missing") from error
    return found
