from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import sentencepiece

from model.data.shards import Corpus, read_shard
from model.data.vocab import byte_table
from service.adapters.hub import HuggingFaceHub
from service.cli.app import run_command
from service.corpus.fetch import count_bytes, fetch, whole_documents
from service.corpus.fineweb import Variant, find_variant, how_to_get, is_fineweb, open_fineweb, variants
from service.corpus.prepare import ready
from service.errors import CorpusError, SpecError
from service.settings import read_settings
from service.wiring import Wiring
from sweeps.recipes.tiny import tiny
from tests.conftest import BOS, TEXT
from tests.service.hub_server import COMMIT, LocalHub, serving

VARIANT = Variant(
    name="sp1024", repository="someone/golf", revision=COMMIT, tokenizer="tokens/bpe.model", shards="data/sp1024"
)
TRAIN = [f"data/sp1024/fineweb_train_{i:06d}.bin" for i in range(3)]
VAL = "data/sp1024/fineweb_val_000000.bin"


def shard(tokens: list[int], magic: int = 20240520, count: int | None = None) -> bytes:
    header = struct.pack("<3i", magic, 1, len(tokens) if count is None else count).ljust(1024, b"\0")
    return header + np.array(tokens, dtype="<u2").tobytes()


@pytest.fixture(scope="module")
def files(tokenizer_file: Path) -> dict[str, bytes]:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))
    lines = [[BOS, *tokenizer.encode(line)] for line in TEXT.splitlines()]
    parts = {TRAIN[0]: lines[:2], TRAIN[1]: lines[2:4], TRAIN[2]: lines[4:5], VAL: lines[5:]}
    return {
        VARIANT.tokenizer: tokenizer_file.read_bytes(),
        **{path: shard([token for line in part for token in line]) for path, part in parts.items()},
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[LocalHub]:
    with serving(LocalHub(repository=VARIANT.repository, files=dict(files))) as local:
        yield local


def fetched(hub: LocalHub, corpora: Path, shards: int = 2, told: list[str] | None = None) -> Corpus:
    return fetch(VARIANT, shards, corpora, HuggingFaceHub(hub.url), (told if told is not None else []).append)


def downloads(hub: LocalHub) -> list[str]:
    return [path for method, path, _ in hub.asked if method == "GET"]


def test_a_fetched_corpus_is_the_files_of_the_hub_with_a_manifest_that_names_them(
    hub: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    made = fetched(hub, tmp_path)
    assert made.folder == tmp_path / "fineweb-sp1024-2"
    for path in (*TRAIN[:2], VAL, VARIANT.tokenizer):
        assert (made.folder / Path(path).name).read_bytes() == files[path]
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert (manifest["repository"], manifest["commit"]) == (VARIANT.repository, COMMIT)
    assert [ref["sha256"] for ref in manifest["splits"]["train"]] == [
        hashlib.sha256(files[path]).hexdigest() for path in TRAIN[:2]
    ]
    assert manifest["splits"]["val"][0]["text_bytes"] == sum(len(text.encode()) for text in TEXT.splitlines()[5:])
    assert made.tokens("train").tolist() == [
        token for path in TRAIN[:2] for token in np.frombuffer(files[path][1024:], dtype="<u2")
    ]
    assert ready(made.folder) == made == open_fineweb("fineweb-sp1024-2", tmp_path)
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(
        [*(Path(path).name for path in (*TRAIN[:2], VAL, VARIANT.tokenizer)), "manifest.json"]
    )


def test_a_second_fetch_downloads_nothing_and_more_shards_only_what_is_new(hub: LocalHub, tmp_path: Path) -> None:
    first = fetched(hub, tmp_path)
    hub.asked.clear()
    assert fetched(hub, tmp_path) == first
    assert not hub.asked
    more = fetched(hub, tmp_path, shards=3)
    assert downloads(hub) == [TRAIN[2]]
    assert more.digest != first.digest
    assert (more.folder / Path(VAL).name).samefile(first.folder / Path(VAL).name)
    assert fetched(hub, tmp_path, shards=1).digest not in (first.digest, more.digest)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"", "0 bytes, shorter than a shard's header"),
        (shard([5] * 9)[:-3], "1039 bytes, but its header promises 9 tokens, so 1042"),
        (shard([5] * 9, magic=7), "magic 7"),
        (shard([]), "without tokens"),
        (shard([5, 60_000]), "token 60000 is outside the tokenizer's"),
    ],
    ids=["empty", "truncated", "other-magic", "no-tokens", "foreign-ids"],
)
def test_a_bad_shard_is_refused_by_name_and_fetched_again(
    hub: LocalHub, files: dict[str, bytes], tmp_path: Path, bad: bytes, told: str
) -> None:
    hub.wrong[TRAIN[1]] = [bad, bad]
    lines: list[str] = []
    made = fetched(hub, tmp_path, told=lines)
    assert (made.folder / Path(TRAIN[1]).name).read_bytes() == files[TRAIN[1]]
    refused = [line for line in lines if line.startswith("refused")]
    assert len(refused) == 2
    assert all("fineweb_train_000001.bin" in line and told in line for line in refused)


def test_a_shard_that_stays_bad_ends_the_fetch_naming_it_and_leaves_no_corpus(hub: LocalHub, tmp_path: Path) -> None:
    hub.files[TRAIN[0]] = hub.files[TRAIN[0]][:-2]
    with pytest.raises(CorpusError, match=r"fineweb_train_000000\.bin was fetched 3 times and is bad: .*promises"):
        fetched(hub, tmp_path)
    assert downloads(hub).count(TRAIN[0]) == 3
    with pytest.raises(CorpusError, match="caddie data fetch --variant sp1024 --shards 2"):
        open_fineweb("fineweb-sp1024-2", tmp_path)


def test_what_the_hub_promised_by_digest_must_come(hub: LocalHub, tmp_path: Path) -> None:
    class Lying(LocalHub):
        def etag(self, body: bytes, path: str) -> str:
            return "a" * 64 if path == VAL else super().etag(body, path)

    with (
        serving(Lying(repository=hub.repository, files=hub.files)) as lying,
        pytest.raises(CorpusError, match=r"val_000000\.bin was fetched 3 times.*SHA-256 \w+, the hub says aaaa"),
    ):
        fetched(lying, tmp_path)


def test_a_file_that_was_damaged_since_is_fetched_again(hub: LocalHub, files: dict[str, bytes], tmp_path: Path) -> None:
    made = fetched(hub, tmp_path)
    there = made.folder / Path(TRAIN[0]).name
    there.write_bytes(there.read_bytes()[:-1] + b"\0")  # the size stays
    assert read_shard(there).tolist() != read_shard(made.splits["train"][1]).tolist()
    hub.asked.clear()
    assert fetched(hub, tmp_path) == made
    assert downloads(hub) == [TRAIN[0]]
    assert there.read_bytes() == files[TRAIN[0]]
    there.unlink()
    with pytest.raises(CorpusError, match=r"damaged.*fineweb_train_000000\.bin.*fetches what is missing"):
        open_fineweb(made.name, tmp_path)


def test_an_interrupted_fetch_leaves_a_part_that_the_next_one_goes_on_from(
    hub: LocalHub, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 100)
    hub.files[TRAIN[0]] = shard([5] * 5000)
    adapter = HuggingFaceHub(hub.url)

    class Interrupted:
        """Ctrl-C after some chunks."""

        def __init__(self) -> None:
            self.written = 0

        def write(self, data: bytes) -> int:
            self.written += len(data)
            if self.written > 3000:
                raise KeyboardInterrupt
            return self.file.write(data)

    def broken(file, *_):  # type: ignore[no-untyped-def]
        one = Interrupted()
        one.file = file  # type: ignore[attr-defined]
        return one

    with monkeypatch.context() as during:
        during.setattr("service.adapters.hub.Telling", broken)
        with pytest.raises(KeyboardInterrupt):
            adapter.fetch(VARIANT.repository, COMMIT, TRAIN[0], tmp_path / "a.bin", print)
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(".a.bin.")
    assert part.read_bytes() == hub.files[TRAIN[0]][:3000]
    told: list[str] = []
    adapter.fetch(VARIANT.repository, COMMIT, TRAIN[0], tmp_path / "a.bin", told.append)
    assert hub.asked[-1] == ("GET", TRAIN[0], "bytes=3000-")
    assert told == ["a.bin: going on from 3,000 bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == hub.files[TRAIN[0]]


def test_a_part_of_another_version_of_the_file_is_not_gone_on_from(
    hub: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / ".a.bin.0123abc.part").write_bytes(b"of another version")
    HuggingFaceHub(hub.url).fetch(VARIANT.repository, COMMIT, VAL, tmp_path / "a.bin", print)
    assert (tmp_path / "a.bin").read_bytes() == files[VAL]
    assert hub.asked[-1] == ("GET", VAL, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_where_no_commit_is_written_down_the_first_fetch_decides_for_all(hub: LocalHub, tmp_path: Path) -> None:
    unpinned = Variant(
        name="sp1024", repository=hub.repository, revision=None, tokenizer=VARIANT.tokenizer, shards=VARIANT.shards
    )
    adapter = HuggingFaceHub(hub.url)
    fetch(unpinned, 1, tmp_path, adapter, print)
    hub.newest = "d" * 40
    made = fetch(unpinned, 2, tmp_path, adapter, print)
    assert json.loads((made.folder / "manifest.json").read_text())["commit"] == COMMIT
    newer = fetch(unpinned, 2, tmp_path, adapter, print, revision="main")
    assert json.loads((newer.folder / "manifest.json").read_text())["commit"] == "d" * 40


def test_what_the_hub_lacks_is_named_with_the_way_out(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"train_000003\.bin: no such file; ask for fewer --shards"):
        fetched(hub, tmp_path, shards=4)
    with pytest.raises(CorpusError, match="no such revision"):
        fetch(VARIANT, 1, tmp_path, HuggingFaceHub(hub.url), print, revision="gone")
    with pytest.raises(SpecError, match="--shards 0"):
        fetched(hub, tmp_path, shards=0)


def test_a_hub_that_is_not_there_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with serving(LocalHub(repository="x/y")) as local:
        gone = local.url
    with pytest.raises(CorpusError, match=r"can't be reached.*goes on from here, and HF_ENDPOINT names another"):
        HuggingFaceHub(gone).commit("x/y", None)


@pytest.mark.parametrize("name", ["sp1024", "sp4096", "sp8192"])
def test_the_known_variants_are_the_field_s(name: str) -> None:
    found = find_variant(name)
    size = name.removeprefix("sp")
    assert found.tokenizer == f"datasets/tokenizers/fineweb_{size}_bpe.model"
    assert found.paths(2)["train"][1] == f"datasets/datasets/fineweb10B_{name}/fineweb_train_000001.bin"
    assert found.paths(2)["val"] == (f"datasets/datasets/fineweb10B_{name}/fineweb_val_000000.bin",)
    assert found.revision is None or len(found.revision) == 40
    assert is_fineweb(f"fineweb-{name}-80")
    assert how_to_get(f"fineweb-{name}-80") == f"caddie data fetch --variant {name} --shards 80"
    assert how_to_get("pd_mix_v1") == "caddie data prepare"
    assert len(variants()) == 3
    with pytest.raises(SpecError, match="sp1024, sp4096, sp8192"):
        find_variant("sp2048")


def test_a_recipe_takes_a_fetched_corpus_by_name_and_only_for_its_vocabulary(hub: LocalHub, tmp_path: Path) -> None:
    wiring = Wiring(read_settings({"CADDIE_HOME": str(tmp_path)}))
    spec = tiny().at({"corpus": "fineweb-sp1024-1"})
    with pytest.raises(CorpusError, match="isn't here: caddie data fetch --variant sp1024 --shards 1"):
        wiring.corpus(spec, print)
    made = fetched(hub, wiring.settings.corpora, shards=1)
    with pytest.raises(CorpusError, match=f"has {made.vocab_size} tokens, net.vocab_size is .*: set it to"):
        wiring.corpus(spec, print)
    assert wiring.corpus(spec.at({"net.vocab_size": made.vocab_size}), print) == made


def test_the_command_fetches_from_the_server_that_the_environment_names(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = find_variant("sp1024")
    names = dict(
        zip(
            (VARIANT.tokenizer, VAL, *TRAIN),
            (pinned.tokenizer, *pinned.paths(3)["val"], *pinned.paths(3)["train"]),
            strict=True,
        )
    )
    whole = LocalHub(repository=pinned.repository, files={names[path]: body for path, body in hub.files.items()})
    monkeypatch.setenv("CADDIE_HOME", str(tmp_path))
    with serving(whole) as local:
        monkeypatch.setenv("HF_ENDPOINT", local.url)
        assert run_command(["data", "fetch", "--variant", "sp1024", "--shards", "2", "--json"], {}, {}) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == str(tmp_path / "corpora" / "fineweb-sp1024-2")
    assert document["commit"] == pinned.revision
    assert len(document["splits"]["train"]) == 2


def test_whole_documents_end_before_a_document_begins() -> None:
    tokens = np.array([1, 5, 6, 1, 7, 8, 9, 1, 3], dtype=np.uint16)
    for at_most, expected in ((9, 9), (8, 7), (7, 7), (6, 3), (3, 3), (2, 3), (1, 3)):
        assert len(whole_documents(tokens, at_most)) == expected, at_most
    assert len(whole_documents(tokens[:3], 1)) == 3


def test_bytes_are_counted_in_parts_as_in_one(tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = byte_table(sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file)))
    tokens = np.random.default_rng(1).integers(0, 300, 100).astype(np.uint16)
    whole = count_bytes(table, tokens)
    for size in (1, 7, 99, 100):
        monkeypatch.setattr("service.corpus.fetch.COUNTED_AT_ONCE", size)
        assert count_bytes(table, tokens) == whole
