"""Prepared corpora beside a remote store: ``corpora/<digest>/``, the manifest last."""

from __future__ import annotations

from pathlib import Path

from model.data.shards import MANIFEST, Corpus, open_corpus
from service.adapters.remote import Remote
from service.corpus.prepare import ready
from service.errors import StoreError

FOLDER = "corpora"


def share(remote: Remote, corpus: Corpus) -> None:
    """Upload a prepared corpus, unless it is there."""
    place = f"{FOLDER}/{corpus.digest}"
    if remote.read(f"{place}/{MANIFEST}") is not None:
        return
    for name in _files_of(corpus):
        remote.send(corpus.folder / name, f"{place}/{name}")
    remote.create(f"{place}/{MANIFEST}", (corpus.folder / MANIFEST).read_bytes())


def bring(remote: Remote, digest: str, folder: Path) -> None:
    """Download a corpus into ``folder``, every file verified.

    Raises:
        StoreError: it isn't there, or is damaged and taken away, so that the next driver uploads it anew.
    """
    place = f"{FOLDER}/{digest}"
    manifest = remote.read(f"{place}/{MANIFEST}")
    if manifest is None:
        raise StoreError(f"{remote.url}: corpus {digest} isn't there: run the same again, which uploads it")
    (folder / MANIFEST).write_bytes(manifest)
    try:
        for name in _files_of(open_corpus(folder, digest)):
            remote.fetch(f"{place}/{name}", folder / name)
        sound = ready(folder) is not None
    except (ValueError, FileNotFoundError):
        sound = False
    if not sound:
        remote.delete(f"{place}/{MANIFEST}")
        raise StoreError(f"{remote.url}: corpus {digest} is damaged: run the same again, which uploads it anew")


def _files_of(corpus: Corpus) -> list[str]:
    paths = [corpus.tokenizer, *(path for shards in corpus.splits.values() for path in shards)]
    return [str(path.relative_to(corpus.folder)) for path in paths]
