from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from model.data.shards import Corpus, open_corpus, read_shard, write_shard
from model.data.vocab import load_tokenizer
from service.corpus.documents import Documents, find_documents
from service.corpus.prepare import check_bytes, prepare, ready
from service.errors import CorpusError
from service.source import ROOT

VOCAB = 340
SHARED = ROOT.parent / "shared" / "data"
Rows = list[dict[str, str]]
Said = list[str]


@pytest.fixture(scope="module")
def documents(documents_file: Path) -> Documents:
    return find_documents(str(documents_file))


@pytest.fixture(scope="module")
def made(documents: Documents, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of ``documents``, for tests that only read it."""
    return prepare(documents, VOCAB, tmp_path_factory.mktemp("corpora"), print)


def build(documents: Documents, corpora: Path, said: Said | None = None) -> Corpus:
    return prepare(documents, VOCAB, corpora, (said if said is not None else []).append)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def times(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def test_a_corpus_holds_every_document_after_a_bos_token(made: Corpus, document_rows: Rows) -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(made.tokenizer))
    assert tokenizer.get_piece_size() == made.vocab_size == VOCAB
    for split in ("train", "val"):
        tokens = made.tokens(split)
        starts = [*np.flatnonzero(tokens == 1).tolist(), len(tokens)]
        assert starts[0] == 0
        texts = [tokenizer.decode(tokens[a + 1 : b].tolist()) for a, b in itertools.pairwise(starts)]
        assert texts == [row["text"] for row in document_rows if row["split"] == split]


def test_the_tokenizer_has_the_field_s_ids(made: Corpus) -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(made.tokenizer))
    assert (tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.unk_id()) == (0, 1, 2, 3)
    assert [tokenizer.is_byte(token) for token in (3, 4, 259, 260)] == [False, True, True, False]
    assert not tokenizer.id_to_piece(tokenizer.encode("walk")[0]).startswith("\u2581"), "no space is put before a text"
    assert tokenizer.decode(tokenizer.encode("🏌 12345")) == "🏌 12345"
    assert all(len(tokenizer.id_to_piece(i)) == 1 for i in tokenizer.encode("9341")), "digits stand alone"


def test_the_manifest_tells_what_the_files_hold(made: Corpus, documents: Documents) -> None:
    manifest = json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["documents_sha256"] == hashlib.sha256(documents.path.read_bytes()).hexdigest()
    assert manifest["vocab_size"] == VOCAB
    refs = [manifest["tokenizer"], *(ref for split in manifest["splits"].values() for ref in split)]
    for ref in refs:
        assert ref["sha256"] == hashlib.sha256((made.folder / ref["path"]).read_bytes()).hexdigest()
    for split, (ref,) in manifest["splits"].items():
        assert ref["tokens"] == (made.folder / ref["path"]).stat().st_size // 2 - 512
        assert ref["text_bytes"] == sum(len(text.encode()) for text in documents.split(split))


def test_the_same_documents_give_the_same_corpus_byte_for_byte_anywhere(
    made: Corpus, documents: Documents, tmp_path: Path
) -> None:
    again = build(documents, tmp_path)
    assert again.digest == made.digest
    assert contents(again.folder) == contents(made.folder)


def test_other_documents_another_vocabulary_or_another_text_are_another_corpus(
    made: Corpus, documents: Documents, document_rows: Rows, tmp_path: Path
) -> None:
    changed = tmp_path / "walks.jsonl"
    rows = [*document_rows[:-1], {"split": "train", "text": "One more walk."}]
    changed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    others = [
        prepare(documents, VOCAB + 1, tmp_path, print),
        prepare(Documents(name="walks", path=changed), VOCAB, tmp_path, print),
    ]
    assert len({made.digest, *(other.digest for other in others)}) == 3
    assert len({made.folder.name, *(other.folder.name for other in others)}) == 3


def test_preparing_again_does_no_work(documents: Documents, tmp_path: Path) -> None:
    said: Said = []
    first = build(documents, tmp_path, said)
    assert len(said) > 0
    before = times(first.folder)
    said.clear()
    assert build(documents, tmp_path, said) == first
    assert said == []
    assert times(first.folder) == before


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda path: path.write_bytes(path.read_bytes()[:-2] + bytes([path.read_bytes()[-2] ^ 1, 0])),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("pattern", ["*_val_*.bin", "*_train_*.bin", "tokenizer.model", "manifest.json"])
def test_a_damaged_file_is_made_again_as_it_was(
    documents: Documents, made: Corpus, tmp_path: Path, pattern: str, harm: Callable[[Path], object]
) -> None:
    folder = tmp_path / made.folder.name
    folder.mkdir()
    for name, data in contents(made.folder).items():
        (folder / name).write_bytes(data)
    assert ready(folder) is not None
    (damaged,) = folder.glob(pattern)
    harm(damaged)
    assert ready(folder) is None
    again = build(documents, tmp_path)
    assert contents(again.folder) == contents(made.folder)
    assert again.digest == made.digest
    assert ready(folder) == again


def test_a_manifest_whose_digest_is_not_that_of_its_files_is_made_again(
    documents: Documents, made: Corpus, tmp_path: Path
) -> None:
    folder = build(documents, tmp_path).folder
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    (folder / "manifest.json").write_text(text.replace(made.digest, "0" * 16), encoding="utf-8")
    assert build(documents, tmp_path).digest == made.digest


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_prepare_that_breaks_off_goes_on_from_the_finished_tokenizer(
    documents: Documents, made: Corpus, tmp_path: Path, stop: int
) -> None:
    said: Said = []

    def break_off(what: str) -> None:
        said.append(what)
        if len(said) > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(documents, VOCAB, tmp_path, break_off)
    folder = tmp_path / made.folder.name
    assert "tokenizer" in said[0]
    assert not (folder / "manifest.json").exists()
    tokenizer = times(folder)["tokenizer.model"]
    said.clear()
    again = build(documents, tmp_path, said)
    assert not any("training a tokenizer" in what for what in said)
    assert times(folder)["tokenizer.model"] == tokenizer
    assert contents(again.folder) == contents(made.folder)


def byte_stream(tokenizer: sentencepiece.SentencePieceProcessor, text: bytes) -> np.ndarray:
    return np.array([1, *(tokenizer.piece_to_id(f"<0x{byte:02X}>") for byte in text)], dtype=np.uint16)


def test_the_byte_check_counts_the_bytes_of_the_text(made: Corpus, documents: Documents) -> None:
    tokenizer = load_tokenizer(made.tokenizer)
    expected = sum(len(text.encode()) for text in documents.split("val"))
    assert check_bytes(tokenizer, made.tokens("val")) == expected
    two = np.array([1, *tokenizer.encode("a ball"), 1, *tokenizer.encode("é 漢🏌")], dtype=np.uint16)
    assert check_bytes(tokenizer, two) == 6 + 2 + 1 + 3 + 4


def test_the_byte_check_refuses_a_stream_whose_text_has_other_bytes(made: Corpus) -> None:
    tokenizer = load_tokenizer(made.tokenizer)
    # Half of a character decodes to a replacement character of three bytes.
    with pytest.raises(CorpusError, match=r"counts 1 bytes but the decoded text has 3"):
        check_bytes(tokenizer, byte_stream(tokenizer, b"\xc3"))


def test_the_byte_check_refuses_a_shard_of_another_tokenizer(
    made: Corpus, documents: Documents, tmp_path: Path
) -> None:
    for vocab_size in (VOCAB - 10, VOCAB + 10):
        other = prepare(documents, vocab_size, tmp_path, print)
        with pytest.raises(CorpusError, match="don't belong together"):
            check_bytes(load_tokenizer(other.tokenizer), made.tokens("val"))


def test_the_byte_check_refuses_a_stream_that_does_not_begin_with_a_document(made: Corpus) -> None:
    with pytest.raises(CorpusError, match="BOS"):
        check_bytes(load_tokenizer(made.tokenizer), made.tokens("val")[1:])


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_split_is_refused_by_name(document_rows: Rows, tmp_path: Path, missing: str) -> None:
    path = tmp_path / "half.jsonl"
    rows = [row for row in document_rows if row["split"] != missing]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(CorpusError, match=missing):
        build(Documents(name="half", path=path), tmp_path / "corpora")
    assert not list((tmp_path / "corpora").glob("*/manifest.json"))


def test_a_bad_row_is_named_when_preparing(document_rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in document_rows[:9]) + '{"split": "val"}\n', "utf-8")
    with pytest.raises(CorpusError, match=r"bad\.jsonl:10: "):
        build(Documents(name="bad", path=path), tmp_path / "corpora")


def test_a_vocabulary_too_large_for_the_documents_is_refused_with_the_largest(
    documents: Documents, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match="tokenizer can't be trained") as refused:
        prepare(documents, 60_000, tmp_path, print)
    assert "<= " in str(refused.value)


@pytest.mark.parametrize("vocab_size", [0, 279, 65_537])
def test_a_vocabulary_that_no_shard_can_hold_or_no_byte_fits_is_refused(
    documents: Documents, tmp_path: Path, vocab_size: int
) -> None:
    with pytest.raises(CorpusError, match=f"vocab_size {vocab_size}"):
        prepare(documents, vocab_size, tmp_path, print)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_names_the_variable_that_sets_it(documents: Documents, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CorpusError, match="CADDIE_HOME"):
        build(documents, tmp_path / "file" / "corpora")


def test_a_folder_without_a_corpus_is_not_ready(tmp_path: Path) -> None:
    assert ready(tmp_path) is None
    assert ready(tmp_path / "gone") is None


def test_a_tokenizer_that_was_damaged_before_the_rest_was_made_is_trained_again(
    documents: Documents, made: Corpus, tmp_path: Path
) -> None:
    folder = tmp_path / made.folder.name
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(made.tokenizer.read_bytes()[:-40])
    assert contents(build(documents, tmp_path).folder) == contents(made.folder)


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"name": "x"}', "null"])
def test_a_manifest_that_is_none_is_not_ready(made: Corpus, tmp_path: Path, manifest: str) -> None:
    for name, data in contents(made.folder).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
    assert ready(tmp_path) is None


def test_a_prepared_corpus_opens_by_itself_and_by_its_digest_only(made: Corpus) -> None:
    assert open_corpus(made.folder, made.digest) == made
    with pytest.raises(ValueError, match="planned for"):
        open_corpus(made.folder, "0" * 16)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the genuine FineWeb prefix isn't part of the project")
def test_the_genuine_validation_prefix_has_exactly_the_bytes_of_its_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(SHARED / "fineweb_1024_bpe.model")
    tokens = read_shard(SHARED / "fineweb_val_prefix_sp1024.bin")
    assert len(tokens) == 1_040_298
    assert check_bytes(tokenizer, tokens) == 2_504_867
    write_shard(tmp_path / "copy.bin", tokens)
    assert (tmp_path / "copy.bin").read_bytes() == (SHARED / "fineweb_val_prefix_sp1024.bin").read_bytes()
