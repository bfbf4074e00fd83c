from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("s3fs")

from model.data.shards import Corpus, open_corpus
from service.adapters.store_fsspec import RemoteStore
from service.errors import StoreError

MakeNode = Callable[[str], RemoteStore]
Objects = Callable[[RemoteStore], list[str]]
on_each = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)


@on_each
def test_a_corpus_reaches_a_node_that_lacks_it(
    node: MakeNode, objects: Objects, prepared: Corpus, tmp_path: Path
) -> None:
    here, there = node("here"), node("there")
    own = shutil.copytree(prepared.folder, here.corpora / "walks-sp384")
    assert here.corpus_here(str(own), prepared.digest) == str(own)
    elsewhere = str(tmp_path / "of-another-machine")
    with pytest.raises(StoreError, match=f"corpus {prepared.digest} isn't there"):
        there.corpus_here(elsewhere, prepared.digest)
    here.share(prepared)
    place = there.corpus_here(elsewhere, prepared.digest)
    assert place == there.corpus_here(elsewhere, prepared.digest) == str(tmp_path / "there/corpora" / prepared.digest)
    brought = open_corpus(Path(place), prepared.digest)
    for split in ("train", "val"):
        assert (brought.tokens(split) == prepared.tokens(split)).all()
    assert brought.tokenizer.read_bytes() == prepared.tokenizer.read_bytes()
    before = objects(here)
    here.share(prepared)
    assert objects(here) == before


def test_a_damaged_corpus_is_refused_and_uploaded_anew(
    node: MakeNode, objects: Objects, prepared: Corpus, tmp_path: Path
) -> None:
    here, there = node("here"), node("there")
    here.share(prepared)
    shard = next(name for name in objects(here) if "train" in name and name.startswith("corpora/"))
    content = here.remote.read(shard) or b""
    here.remote.write(shard, content[:-2] + b"\0\0")
    with pytest.raises(StoreError, match=f"corpus {prepared.digest} is damaged"):
        there.corpus_here("/none", prepared.digest)
    assert not (tmp_path / "there/corpora" / prepared.digest).exists()
    here.share(prepared)
    assert open_corpus(Path(there.corpus_here("/none", prepared.digest))).digest == prepared.digest
