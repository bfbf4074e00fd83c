"""A store of several nodes that share nothing but a URL, each with a home of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")

from model.data.shards import Corpus, open_corpus
from model.report import StageReport, file_ref, write_report
from model.stages import Stage
from service.adapters.attempt import job_json
from service.adapters.flight import LockLost, held
from service.adapters.leases import LEASE_S, Leases
from service.adapters.notes_fsspec import ALIVE_S, RemoteNotes
from service.adapters.remote import Remote
from service.adapters.store_fs import FolderStore
from service.adapters.store_fsspec import RemoteStore
from service.adapters.stores import StoreAt, open_notes, open_store
from service.corpus.documents import Documents
from service.corpus.prepare import prepare
from service.errors import StoreError
from service.experiment import Experiment, contend
from service.notes import ExperimentNote, note_of
from service.spec import RunSpec
from service.stages import plan_seed

KEY = "train-0123456789abcdef"
MakeNode = Callable[[str], RemoteStore]
on_each = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)


@pytest.fixture
def node(url: str, tmp_path: Path) -> MakeNode:
    """``node("a")``: the store as node a sees it, freshly opened."""
    return lambda name: RemoteStore(tmp_path / name, Remote(url))


def attempt_of(store: FolderStore, text: bytes = b"weights " * 50, elapsed_s: float = 1.5) -> Path:
    """A try that went well: a log, two outputs and a report."""
    attempt = store.begin(KEY)
    out = attempt / "out"
    out.mkdir()
    (attempt / "log.txt").write_text(f"took {elapsed_s}\n", encoding="utf-8")
    (out / "checkpoint.bin").write_bytes(text)
    (out / "curve.json").write_bytes(b"[2.5, 2.25]")
    refs = {name: file_ref(out, name) for name in ("checkpoint.bin", "curve.json")}
    write_report(out, StageReport(stage="train", seed=42, elapsed_s=elapsed_s, metrics={"val_bpb": 2.25}, outputs=refs))
    return attempt


def objects(store: RemoteStore) -> list[str]:
    """Every entry and file of the remote."""
    found = store.remote.files.find(store.remote.root)
    return sorted(str(path).removeprefix(store.remote.root + "/") for path in found)


@on_each
def test_what_one_node_publishes_another_has_byte_for_byte(node: MakeNode) -> None:
    here, there = node("here"), node("there")
    assert there.find(KEY) is None
    report = here.publish(KEY, attempt_of(here), {"parts": {"seed": "42"}})
    assert there.published() == {KEY}
    assert there.peek(KEY) == report
    assert not there.folder(KEY).exists(), "a look fetches nothing"
    assert there.find(KEY) == report
    files = sorted(path.name for path in here.folder(KEY).iterdir())
    assert files == ["checkpoint.bin", "curve.json", "key.json", "log.txt", "report.json"]
    for name in files:
        assert (there.folder(KEY) / name).read_bytes() == (here.folder(KEY) / name).read_bytes()
    assert there.log(KEY) == "took 1.5\n"
    times = {(one.folder(KEY) / "report.json").stat().st_mtime for one in (here, there)}
    assert len(times) == 1, "a view has the same times from every node"
    assert there.attempts(KEY) == 0
    assert list(there.incoming.glob("*")) == []


def test_a_gang_s_node_fetches_what_its_stage_builds_on(
    node: MakeNode, spec: RunSpec, prepared: Corpus, finish: Callable[..., Any]
) -> None:
    here, there = node("here"), node("there")
    train, pack, *_ = plan_seed(spec, 1, prepared)
    here.share(prepared)
    finish(here, train)
    job = job_json(pack, there)
    assert job["corpus"] == str(there.corpora / prepared.digest)
    folder = job["inputs"]["train"]
    assert Path(folder).is_relative_to(there.stages)
    assert (Path(folder) / "output.bin").read_bytes() == (here.folder(train.key) / "output.bin").read_bytes()
    with pytest.raises(StoreError, match=f"{pack.key} was finished and isn't there any more"):
        there.brought(pack.key)


def test_an_upload_that_breaks_off_at_any_point_leaves_nothing_to_find_and_is_made_up_for(
    node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.store_fsspec.PATIENCE_S", ())
    for broken in range(5):
        here, sent = node(f"here{broken}"), list[str]()
        real_send, real_create = here.remote.send, here.remote.create

        def counted(name: str, sent: list[str] = sent, broken: int = broken) -> None:
            if len(sent) == broken:
                raise StoreError(f"{name}: the connection is gone")
            sent.append(name)

        def send(source: Path, name: str, real: Any = real_send, counted: Any = counted) -> None:
            counted(name)
            real(source, name)

        def create(name: str, data: bytes, real: Any = real_create, counted: Any = counted) -> bool:
            counted(name)
            return bool(real(name, data))

        with monkeypatch.context() as patch:
            patch.setattr(here.remote, "send", send)
            patch.setattr(here.remote, "create", create)
            with pytest.raises(StoreError, match="the connection is gone"):
                here.publish(KEY, attempt_of(here))
        there = node(f"there{broken}")
        assert there.find(KEY) is None
        assert there.published() == set()
        report = node(f"here{broken}").find(KEY)  # the same node, later
        assert report is not None
        assert there.find(KEY) == report
        there.remote.delete(f"entries/{KEY}.json")
    assert len(sent) == 4


def test_a_finished_stage_outlasts_a_server_that_is_away_for_a_while(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.store_fsspec.PATIENCE_S", (0.0, 0.0))
    here, refusals = node("here"), [2]
    real = here.remote.send

    def send(source: Path, name: str) -> None:
        if refusals[0]:
            refusals[0] -= 1
            raise StoreError("the server is away")
        real(source, name)

    monkeypatch.setattr(here.remote, "send", send)
    report = here.publish(KEY, attempt_of(here))
    assert node("there").find(KEY) == report


def test_a_home_from_before_the_url_was_set_is_taken_along(node: MakeNode, tmp_path: Path) -> None:
    old = FolderStore(tmp_path / "here")
    report = old.publish(KEY, attempt_of(old))
    assert node("here").find(KEY) == report
    assert node("there").find(KEY) == report


@pytest.mark.parametrize(
    ("url", "damage"),
    [
        *(("file", damage) for damage in ("changed", "shorter", "gone", "log", "entry")),
        ("s3", "changed"),
        ("s3", "gone"),
    ],
    indirect=["url"],
)
def test_a_damaged_entry_is_set_aside_there_named_and_computed_again(
    node: MakeNode, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = node("here")
    here.publish(KEY, attempt_of(here))
    (name,) = (name for name in objects(here) if name.endswith("/log.txt" if damage == "log" else "/checkpoint.bin"))
    content = here.remote.read(name)
    assert content is not None
    if damage == "gone":
        here.remote.delete(name)
    elif damage == "entry":
        here.remote.write(f"entries/{KEY}.json", b"{")
    else:
        here.remote.write(name, content[:-1] if damage == "shorter" else bytes([content[0] ^ 1]) + content[1:])
    there = node("there")
    with caplog.at_level(logging.WARNING):
        assert there.find(KEY) is None
    assert f"stage {KEY} is damaged" in caplog.text
    assert there.published() == set()
    assert len(there.remote.listing("damaged")) == 1
    assert list(there.incoming.glob("*")) == []
    again = there.publish(KEY, attempt_of(there, elapsed_s=7.0))
    assert again.elapsed_s == 7.0
    assert node("third").find(KEY) == again
    assert node("here").find(KEY) == again, "what was set aside doesn't come back from an old copy"


def test_a_damaged_copy_of_a_node_is_fetched_again(node: MakeNode) -> None:
    here, there = node("here"), node("there")
    report = here.publish(KEY, attempt_of(here))
    there.find(KEY)
    (there.folder(KEY) / "checkpoint.bin").write_bytes(b"weights")
    assert there.find(KEY) == report
    assert (there.folder(KEY) / "checkpoint.bin").read_bytes() == b"weights " * 50
    assert set(there.set_aside()) == {KEY}
    assert there.remote.listing("damaged") == {}


@on_each
def test_two_who_publish_the_same_key_both_succeed_with_one_entry(node: MakeNode) -> None:
    nodes = [node(name) for name in "abc"]
    tries = [attempt_of(one, text=b"%d" % number * 99, elapsed_s=number) for number, one in enumerate(nodes)]
    ready, reports = threading.Barrier(3), dict[int, StageReport]()

    def publish(number: int) -> None:
        ready.wait()
        reports[number] = nodes[number].publish(KEY, tries[number])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = {report.elapsed_s for report in reports.values()}
    for one in (*nodes, node("d")):
        assert one.find(KEY) == reports[0]
        assert (one.folder(KEY) / "checkpoint.bin").read_bytes() == b"%d" % winner * 99
        assert one.log(KEY) == f"took {int(winner)}\n"
    assert nodes[0].remote.listing("damaged") == {}


def test_a_plan_reads_what_stages_were_made_of_without_their_files(
    node: MakeNode, spec: RunSpec, corpus: Corpus, finish: Callable[..., Any], tmp_path: Path
) -> None:
    here, there, folder = node("here"), node("there"), FolderStore(tmp_path / "folder")
    planned = [one for seed in (1, 2, 3) for one in plan_seed(spec, seed, corpus)]
    for one in planned:
        finish(here, one)
        finish(folder, one)
    for stage in (Stage.TRAIN, Stage.PACK):
        found = {one.key: one for one in there.newest(stage, 10)}
        assert found == {one.key: one for one in folder.newest(stage, 10)}
    assert len(there.newest(Stage.TRAIN, 2)) == 2
    assert there.made_of(planned[0].key) == folder.made_of(planned[0].key)
    assert there.made_of(KEY) is None
    assert list(there.stages.iterdir()) == []


def test_what_runs_is_known_where_it_runs(node: MakeNode) -> None:
    here, there = node("here"), node("there")
    here.begin(KEY)
    here.begin("pack-1")
    assert here.running() == {}
    with there.lock(KEY) as ours:
        assert ours
        assert here.running() == {KEY: here.tries / KEY / "1" / "log.txt"}
        assert there.running() == {}


@pytest.fixture(scope="module")
def prepared(documents_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus whose manifest has digests, as the driver makes it."""
    documents = Documents(name="walks", path=documents_file)
    return prepare(documents, 384, tmp_path_factory.mktemp("corpora"), lambda _: None)


@on_each
def test_a_corpus_reaches_a_node_that_lacks_it(node: MakeNode, prepared: Corpus, tmp_path: Path) -> None:
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


def test_a_damaged_corpus_is_refused_and_uploaded_anew(node: MakeNode, prepared: Corpus, tmp_path: Path) -> None:
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


def test_a_lost_lease_ends_the_block_that_held_it(url: str, tmp_path: Path) -> None:
    clock = [0.0]
    holder = RemoteStore(tmp_path / "a", Remote(url))
    other = Leases(Remote(url), lambda: clock[0])
    ended: list[str] = []

    async def compute() -> None:
        async with held(holder, KEY) as ours:
            assert ours
            with other.hold(KEY) as taken:
                assert not taken
            clock[0] += LEASE_S
            with other.hold(KEY) as taken:
                assert taken
                try:
                    await asyncio.to_thread(holder.leases.renew)
                    await asyncio.sleep(60)
                finally:
                    ended.append("its gang")

    with pytest.raises(LockLost):
        asyncio.run(compute())
    assert ended == ["its gang"]


@on_each
def test_who_is_cancelled_while_it_asks_for_a_lock_leaves_none(url: str, tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "a", Remote(url))

    async def ask() -> None:
        async with held(store, KEY):
            raise AssertionError("never inside")

    async def cancel() -> None:
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancel())
    assert store.leases.taken() == set()


def test_a_node_s_own_home_is_the_cache_of_a_url_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CADDIE_HOME", str(tmp_path / "node"))
    shared, remote = StoreAt(home=tmp_path / "home"), StoreAt(home=tmp_path / "home", url=f"file://{tmp_path}/remote")
    assert shared.from_here() == shared
    assert remote.from_here() == replace(remote, home=tmp_path / "node")
    assert open_store(remote.from_here()).stages == tmp_path / "node/stages"
    assert type(open_store(shared)) is FolderStore


@pytest.fixture
def note(spec: RunSpec, corpus: Corpus) -> ExperimentNote:
    base = contend(spec, {}, (1, 2), corpus, Stage.SLIDING, (Stage.SLIDING,))
    return note_of(Experiment(name="here", seeds=(1, 2), contenders=(base,)), git_sha="a", git_dirty=False, started_s=1)


@on_each
def test_notes_are_read_on_every_machine_and_removed_copies_come_back(
    url: str, tmp_path: Path, note: ExperimentNote
) -> None:
    here, there = (open_notes(StoreAt(home=tmp_path / name, url=url)) for name in ("here", "there"))
    assert there.read() == ([], [])
    here.write(note)
    assert there.read() == ([note], [])
    there.write(replace(note, baseline="lr=1", git_sha="b"))
    (mine,), _ = here.read()
    assert (mine.baseline, mine.git_sha) == ("lr=1", "a")
    shutil.rmtree(tmp_path / "here")
    assert here.read() == ([mine], [])


def test_a_driver_is_seen_alive_from_another_machine_until_it_ends_or_its_mark_is_old(
    url: str, tmp_path: Path, note: ExperimentNote, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = RemoteNotes(tmp_path / "here", Remote(url)), RemoteNotes(tmp_path / "there", Remote(url))
    assert not there.alive(note)
    with here.hold(note):
        assert here.alive(note)
        assert there.alive(note)
        now_s = there.remote.now_s()
        with monkeypatch.context() as patch:
            patch.setattr(there.remote, "now_s", lambda: now_s + ALIVE_S + 2)
            assert not there.alive(note)
    assert not there.alive(note)
    assert json.loads((tmp_path / "here/experiments" / f"{note.name}-{note.id}.json").read_text())["name"] == note.name


@pytest.mark.parametrize("shared", [True, False], ids=["folder", "url"])
def test_of_those_who_bring_a_view_up_to_date_one_does_at_a_time(
    url: str, tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.notes_fsspec.RENEW_S", 0.05)
    inside, most = [0], [0]

    def show(number: int) -> None:
        at = StoreAt(home=tmp_path / "home") if shared else StoreAt(home=tmp_path / str(number), url=url)
        notes = open_notes(at)
        for _ in range(3):
            with notes.showing():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                notes.read()
                inside[0] -= 1

    threads = [threading.Thread(target=show, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
