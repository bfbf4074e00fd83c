"""A store of several nodes that share nothing but a URL, each with a home of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")

from model.data.shards import Corpus
from model.report import StageReport, file_ref, write_report
from model.stages import Stage
from service.adapters.attempt import job_json
from service.adapters.store_fs import FolderStore
from service.adapters.store_fsspec import RemoteStore
from service.errors import StoreError
from service.spec import RunSpec
from service.stages import plan_seed

KEY = "train-0123456789abcdef"
MakeNode = Callable[[str], RemoteStore]
Objects = Callable[[RemoteStore], list[str]]
on_each = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)


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
    assert files == ["checkpoint.bin", "curve.json", "files.json", "key.json", "log.txt", "report.json"]
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
    node: MakeNode, objects: Objects, damage: str, caplog: pytest.LogCaptureFixture
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
        assert here.running() == {KEY: here.attempted / KEY / "1" / "log.txt"}
        assert there.running() == {}
