from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.data.shards import ShardStream, open_corpus, read_shard, write_shard


def shard_bytes(*tokens: int, magic: int = 20240520, version: int = 1, count: int | None = None) -> bytes:
    """A shard written out by hand."""
    header = struct.pack("<3i", magic, version, len(tokens) if count is None else count)
    return header.ljust(1024, b"\0") + struct.pack(f"<{len(tokens)}H", *tokens)


token_arrays = hnp.arrays(np.uint16, st.integers(1, 300))


@given(tokens=token_arrays)
def test_a_shard_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, tokens: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.bin"
    write_shard(path, tokens)
    assert read_shard(path).tolist() == tokens.tolist()
    assert read_shard(path).dtype == np.uint16


def test_the_file_is_the_field_s_format_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, np.array([1, 258, 65535], dtype=np.uint16))
    assert path.read_bytes() == shard_bytes(1, 258, 65535)
    assert path.read_bytes()[-6:] == b"\x01\x00\x02\x01\xff\xff"
    assert path.stat().st_size == 1024 + 2 * 3


def test_a_missing_shard_is_refused_with_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.bin", tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"{path}: no such shard")):
            read_shard(path)


@given(tokens=token_arrays, data=st.data())
def test_a_shard_cut_short_anywhere_is_refused_with_path_and_both_sizes(
    tmp_path_factory: pytest.TempPathFactory, tokens: np.ndarray, data: st.DataObject
) -> None:
    whole = shard_bytes(*tokens.tolist())
    length = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("shard") / "cut.bin"
    path.write_bytes(whole[:length])
    expected = len(whole) if length >= 1024 else 1024
    with pytest.raises(ValueError, match=re.escape(f"{path}: {length} bytes, ") + rf".*\b{expected}\b"):
        read_shard(path)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (shard_bytes(1, 2, magic=20240521), ["magic 20240521", "20240520"]),
        (shard_bytes(1, 2, version=2), ["version 2", "20240520 and 1"]),
        (shard_bytes(1, 2) + b"\0", ["1029 bytes", "1028 bytes"]),
        (shard_bytes(1, 2, count=3), ["1028 bytes", "1030 bytes", "3 tokens"]),
        (shard_bytes(1, 2, count=-2), ["1028 bytes", "1020 bytes"]),
        (shard_bytes(), ["without tokens"]),
    ],
    ids=["wrong-magic", "wrong-version", "too-long", "count-too-high", "negative-count", "empty"],
)
def test_what_is_not_a_shard_is_refused_with_what_was_found_and_expected(
    tmp_path: Path, content: bytes, parts: list[str]
) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        read_shard(path)
    for part in parts:
        assert part in str(caught.value)


def test_a_split_is_its_shards_in_manifest_order(corpus_folder: Path) -> None:
    corpus = open_corpus(corpus_folder)
    expected = b"".join((corpus_folder / name).read_bytes()[1024:] for name in ("train_0.bin", "train_1.bin"))
    assert np.asarray(corpus.tokens("train"), dtype="<u2").tobytes() == expected
    assert corpus.tokens("val").tobytes() == (corpus_folder / "val_0.bin").read_bytes()[1024:]
    assert corpus.tokenizer == corpus_folder / "tiny.model"
    assert corpus.name == "tiny"


def test_a_corpus_is_opened_by_its_digest_only(corpus_folder: Path) -> None:
    digest = json.loads((corpus_folder / "manifest.json").read_text())["digest"]
    assert open_corpus(corpus_folder, digest).digest == digest
    with pytest.raises(ValueError, match=f"{digest}.*feedbeef"):
        open_corpus(corpus_folder, "feedbeef")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(corpus_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no split 'test'.*\['train', 'val'\]"):
        open_corpus(corpus_folder).tokens("test")


def test_a_missing_shard_of_a_split_is_refused_with_its_path(corpus_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))
    (folder / "train_1.bin").unlink()
    with pytest.raises(ValueError, match=r"train_1\.bin"):
        open_corpus(folder).tokens("train")


def test_tokens_that_the_tokenizer_does_not_have_are_refused(corpus_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))
    size = open_corpus(folder).vocab_size
    write_shard(folder / "val_0.bin", np.array([1, size - 1], dtype=np.uint16))
    assert open_corpus(folder).tokens("val").max() == size - 1
    write_shard(folder / "val_0.bin", np.array([1, size], dtype=np.uint16))
    with pytest.raises(ValueError, match=f"val_0.bin: token {size} is outside the tokenizer's {size}"):
        open_corpus(folder).tokens("val")


GOOD: dict[str, Any] = {
    "name": "x",
    "digest": "0",
    "vocab_size": 9,
    "tokenizer": {"path": "t"},
    "splits": {"val": [{"path": "v"}]},
}


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        "",
        "{",
        "[]",
        "3",
        *(json.dumps({key: value for key, value in GOOD.items() if key != name}) for name in GOOD),
        json.dumps(GOOD | {"splits": {"val": "v"}}),
        json.dumps(GOOD | {"tokenizer": "t"}),
        json.dumps(GOOD | {"splits": [{"path": "v"}]}),
    ],
)
def test_a_folder_without_a_proper_manifest_is_refused_with_its_path(tmp_path: Path, manifest: str | None) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        open_corpus(tmp_path)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), first=st.integers(0, 60), count=st.integers(0, 60))
def test_a_stream_of_shards_reads_as_if_they_were_one(lengths: list[int], first: int, count: int) -> None:
    whole = np.arange(sum(lengths), dtype=np.uint16)
    ends = np.cumsum(lengths)
    stream = ShardStream(
        {
            Path(f"{i}.bin"): whole[end - length : end]
            for i, (end, length) in enumerate(zip(ends, lengths, strict=True))
        },
        100,
    )
    assert len(stream) == len(whole)
    assert stream[first : first + count].tolist() == whole[first : first + count].tolist()
    assert stream[:].dtype == np.uint16


def test_a_stream_of_shards_refuses_foreign_ids_where_it_reads_them() -> None:
    stream = ShardStream({Path("a.bin"): np.array([1, 9]), Path("b.bin"): np.array([3, 10, 4])}, 10)
    assert stream[0:3].tolist() == [1, 9, 3]
    assert stream[4:5].tolist() == [4]
    with pytest.raises(ValueError, match=r"b\.bin: token 10 is outside the tokenizer's 10"):
        stream[1:4]
