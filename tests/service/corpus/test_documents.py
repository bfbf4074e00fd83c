from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path

import pytest

from service.corpus.documents import EMBEDDED, Documents, find_documents
from service.errors import CorpusError

Rows = list[dict[str, str]]


def test_a_split_is_its_texts_in_file_order(document_rows: Rows, documents_file: Path) -> None:
    documents = Documents(name="walks", path=documents_file)
    for split in ("train", "val"):
        assert list(documents.split(split)) == [row["text"] for row in document_rows if row["split"] == split]


def test_a_compressed_file_holds_the_same_documents(document_rows: Rows, documents_file: Path, tmp_path: Path) -> None:
    packed = tmp_path / "walks.jsonl.xz"
    packed.write_bytes(lzma.compress(documents_file.read_bytes()))
    assert list(find_documents(str(packed)).split("train")) == list(find_documents(str(documents_file)).split("train"))


def test_documents_are_found_by_path_and_called_by_their_file_s_name(documents_file: Path) -> None:
    found = find_documents(str(documents_file))
    assert (found.name, found.path) == ("walks", documents_file)
    assert found.digest() == hashlib.sha256(documents_file.read_bytes()).hexdigest()


def test_a_name_that_is_nothing_says_what_there_is() -> None:
    with pytest.raises(CorpusError, match=r"'pd_mix' is neither embedded \(.*pd_mix_v1.*\) nor a file"):
        find_documents("pd_mix")


BAD = {
    "no JSON": "{text",
    "an empty line": "",
    "no split": '{"text": "a"}',
    "no text": '{"split": "train"}',
    "an unknown split": '{"split": "test", "text": "a"}',
    "a text that is none": '{"split": "train", "text": 3}',
    "a list": '["train", "a"]',
    "a number": "7",
    "half a character": '{"split": "train", "text": "\\ud800"}',
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("line", [1, 4])
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, bad: str, line: int) -> None:
    rows = [json.dumps({"split": "train", "text": f"text {number}"}) for number in range(6)]
    rows[line - 1] = bad
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    for split in ("train", "val"):
        with pytest.raises(CorpusError) as refused:
            list(Documents(name="bad", path=path).split(split))
        assert str(refused.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("line", [1, 3000])
def test_bytes_that_are_no_utf_8_are_refused_with_the_file(tmp_path: Path, line: int) -> None:
    rows = [b'{"split": "train", "text": "caddie"}'] * 3000
    rows[line - 1] = b'{"split": "train", "text": "caf\xe9"}'
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b"\n".join(rows) + b"\n")
    with pytest.raises(CorpusError, match="utf-8") as refused:
        list(Documents(name="latin", path=path).split("train"))
    assert str(path) in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(documents_file: Path, tmp_path: Path) -> None:
    packed = lzma.compress(documents_file.read_bytes())
    for name, data in (("cut.jsonl.xz", packed[: len(packed) // 2]), ("plain.jsonl.xz", documents_file.read_bytes())):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorpusError, match="can't be read") as refused:
            list(Documents(name="cut", path=tmp_path / name).split("train"))
        assert name in str(refused.value)
    with pytest.raises(CorpusError, match=r"gone\.jsonl"):
        list(Documents(name="gone", path=tmp_path / "gone.jsonl").split("train"))


def test_the_embedded_corpus_is_the_one_that_results_refer_to() -> None:
    documents = find_documents("pd_mix_v1")
    with lzma.open(documents.path) as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == (
            "4ad743ac8ad309f4d16b64101686460c157edccfe5907902ca42f1f31fa39175"
        )
    texts = {split: list(documents.split(split)) for split in ("train", "val")}
    assert {split: len(found) for split, found in texts.items()} == {"train": 1287, "val": 109}
    sizes = {split: sum(len(text.encode()) for text in found) for split, found in texts.items()}
    assert sizes == {"train": 6_743_840, "val": 561_024}
    assert not set(texts["train"]) & set(texts["val"]), "no document is on both sides"


def test_a_licence_note_lies_beside_the_embedded_corpora() -> None:
    note = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    assert all(path.name.split(".")[0] in note for path in EMBEDDED.glob("*.jsonl.xz"))
    assert "public domain" in note
