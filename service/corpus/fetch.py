"""``caddie data fetch``: FineWeb's shards from the hub, each checked before it counts, whatever breaks off in between.

Files come whole or as a hidden part that the next call goes on from. A file that isn't what it should be (empty,
truncated, another magic, foreign ids, another digest) is named, thrown away and fetched again, three times at most.
The manifest is written last, so that a folder with one is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.data.shards import MANIFEST, Corpus, Tokens, open_corpus, read_shard
from model.data.vocab import BOS, ByteTable, byte_table, load_tokenizer
from model.report import file_ref, write_json
from service.corpus.fineweb import Variant
from service.corpus.prepare import Progress, check_bytes, digest_of
from service.errors import CorpusError, SpecError

TRIES = 3
"""Downloads of one file before it counts as bad on the hub."""
CHECKED_TOKENS = 200_000
"""Of the validation split, decoded and encoded again to see that tokenizer and shards belong together."""
COUNTED_AT_ONCE = 1 << 22


class Hub(Protocol):
    """A server of files by repository, commit and path."""

    def commit(self, repository: str, revision: str | None) -> str:
        """The commit that ``revision`` is; None: the newest.

        Raises:
            CorpusError: there is none, or the hub can't be reached.
        """

    def fetch(self, repository: str, commit: str, path: str, to: Path, progress: Progress) -> None:
        """Bring a file to ``to``, whole or not at all; a part of it stays and is gone on from.

        Raises:
            ValueError: what came isn't what the hub promised (size or digest).
            CorpusError: it isn't there, or the hub can't be reached.
        """


def fetch(
    variant: Variant, train_shards: int, corpora: Path, hub: Hub, progress: Progress, revision: str | None = None
) -> Corpus:
    """The corpus of ``variant`` with the first ``train_shards`` train shards, fetched as far as it isn't here.

    Raises:
        SpecError: no shards are asked for.
        CorpusError: the hub can't be reached, a file stays bad, or the folder can't be written.
    """
    if train_shards < 1:
        raise SpecError(f"--shards {train_shards}: ask for 1 or more")
    folder = corpora / f"fineweb-{variant.name}-{train_shards}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        commit = _commit(variant, corpora, hub, revision)
        return _fetched(folder, variant, train_shards, commit, hub, progress)
    except OSError as error:
        raise CorpusError(f"{folder}: can't write the corpus ({error}); CADDIE_HOME sets another place") from error


def _commit(variant: Variant, corpora: Path, hub: Hub, revision: str | None) -> str:
    """The commit to take: the one asked for, the one that is written down, or the one of the first fetch."""
    pin = corpora / f"fineweb-{variant.name}.json"
    if revision is None and variant.revision is not None:
        return variant.revision
    if revision is None and pin.is_file():
        commit: str = json.loads(pin.read_text(encoding="utf-8"))["commit"]
        return commit
    commit = hub.commit(variant.repository, revision)
    write_json(pin, {"repository": variant.repository, "commit": commit})
    return commit


def _fetched(folder: Path, variant: Variant, train_shards: int, commit: str, hub: Hub, progress: Progress) -> Corpus:
    manifest = folder / MANIFEST
    known = _known_digests(folder, commit)

    def bring(path: str, check: Callable[[Path], object]) -> Path:
        to = folder / Path(path).name

        def is_right(there: Path) -> None:
            check(there)
            if there.name in known and (sha256 := file_ref(folder, there.name).sha256) != known[there.name]:
                raise ValueError(f"{there}: SHA-256 {sha256}, it was {known[there.name]} when it was fetched")

        _take_from_sibling(to, folder, commit)
        _bring(to, is_right, lambda: hub.fetch(variant.repository, commit, path, to, progress), progress)
        return to

    tokenizer_path = bring(variant.tokenizer, load_tokenizer)
    tokenizer = load_tokenizer(tokenizer_path)
    vocab_size = tokenizer.get_piece_size()
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, paths in variant.paths(train_shards).items():
        splits[split] = []
        for number, path in enumerate(paths, 1):
            shard = bring(path, lambda there: _check_shard(there, vocab_size))
            ref = file_ref(folder, shard.name)
            tokens = len(read_shard(shard))
            splits[split].append({"path": shard.name, "sha256": ref.sha256, "tokens": tokens})
            progress(f"{split} shard {number} of {len(paths)}: {tokens:,} tokens")
    first = read_shard(folder / splits["val"][0]["path"])
    checked = check_bytes(tokenizer, whole_documents(first, CHECKED_TOKENS))
    progress(f"tokenizer and shards belong together: {checked:,} bytes of text decoded and encoded again")
    for ref_of_val in splits["val"]:
        ref_of_val["text_bytes"] = count_bytes(byte_table(tokenizer), read_shard(folder / ref_of_val["path"]))
    progress(f"val: {sum(ref['text_bytes'] for ref in splits['val']):,} bytes of text")
    sha256 = file_ref(folder, tokenizer_path.name).sha256
    hashes = [sha256, *(ref["sha256"] for refs in splits.values() for ref in refs)]
    write_json(
        manifest,
        {
            "name": folder.name,
            "digest": digest_of(hashes),
            "vocab_size": vocab_size,
            "tokenizer": {"path": tokenizer_path.name, "sha256": sha256},
            "splits": splits,
            "repository": variant.repository,
            "commit": commit,
        },
    )
    return open_corpus(folder)


def _known_digests(folder: Path, commit: str) -> dict[str, str]:
    """What the files of a complete corpus were when they were fetched; a folder of another commit is emptied."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        refs = [manifest["tokenizer"], *(ref for refs in manifest["splits"].values() for ref in refs)]
        if manifest["commit"] == commit:
            return {ref["path"]: ref["sha256"] for ref in refs}
        for path in folder.iterdir():
            path.unlink()
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError):
        (folder / MANIFEST).unlink()
    return {}


def _bring(to: Path, check: Callable[[Path], object], download: Callable[[], None], progress: Progress) -> None:
    """Have ``to`` be there and pass ``check``."""
    problem, tries = "", 0
    while True:
        try:
            if to.is_file():
                check(to)
                return
        except ValueError as error:
            problem = str(error)
            to.unlink()
        if problem:
            progress(f"refused: {problem}")
        if tries == TRIES:
            break
        tries += 1
        try:
            problem = ""
            download()
        except ValueError as error:
            problem = str(error)
    raise CorpusError(f"{to.name} was fetched {TRIES} times and is bad: {problem}; is --revision right?")


def _check_shard(path: Path, vocab_size: int) -> None:
    """Refuse what isn't a whole shard of the tokenizer's ids.

    Raises:
        ValueError: with the path and what was found.
    """
    top = int(read_shard(path).max())
    if top >= vocab_size:
        raise ValueError(f"{path}: token {top} is outside the tokenizer's {vocab_size}")


def _take_from_sibling(to: Path, folder: Path, commit: str) -> None:
    """Link a file that a corpus of the same variant and commit with another number of shards has."""
    stem = folder.name.rpartition("-")[0]
    for other in sorted(folder.parent.glob(f"{stem}-*/{to.name}")):
        if to.exists() or other.parent == folder:
            continue
        try:
            same = json.loads((other.parent / MANIFEST).read_text(encoding="utf-8"))["commit"] == commit
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same:
            os.link(other, to)


def whole_documents(tokens: Tokens, at_most: int) -> Tokens:
    """The first documents of ``tokens`` that have at most ``at_most`` tokens together, or the first alone."""
    starts = np.flatnonzero(tokens[: at_most + 1] == BOS)
    if len(tokens) <= at_most:
        return tokens
    if len(starts) > 1:
        return tokens[: starts[-1]]
    later = np.flatnonzero(tokens[1:] == BOS)
    return tokens[: later[0] + 1] if len(later) else tokens


def count_bytes(table: ByteTable, tokens: Tokens) -> int:
    """Bytes of text of all targets, some at a time: a validation split has 62 million."""
    total = 0
    for i in range(0, len(tokens) - 1, COUNTED_AT_ONCE):
        part = np.asarray(tokens[i : i + COUNTED_AT_ONCE + 1], dtype=np.int64)
        total += int(table.count(part[:-1], part[1:]).sum())
    return total
