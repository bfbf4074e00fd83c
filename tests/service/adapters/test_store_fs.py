from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.report import FileRef, StageReport, file_ref, write_report
from model.stages import Stage
from service.adapters import seals
from service.adapters.store_fs import FolderStore
from service.errors import StoreError
from service.source import ROOT

KEY = "train-0123456789abcdef"


def attempt_of(store: FolderStore, key: str = KEY, text: bytes = b"weights " * 50, bpb: float = 2.25) -> Path:
    """A try that went well: a log, two outputs and a report."""
    attempt = store.begin(key)
    out = attempt / "out"
    out.mkdir()
    (attempt / "log.txt").write_text("step:1/1\n", encoding="utf-8")
    (out / "checkpoint.bin").write_bytes(text)
    (out / "curve.json").write_bytes(b"[2.5, 2.25]")
    names = ("checkpoint.bin", "curve.json")
    report = StageReport(
        stage="train",
        seed=42,
        elapsed_s=1.5,
        metrics={"val_bpb": bpb},
        outputs={name: file_ref(out, name) for name in names},
        facts={"hardware": "paper"},
    )
    write_report(out, report)
    return attempt


def test_what_is_published_is_found_whole_and_in_another_process_s_store(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.find(KEY) is None
    report = store.publish(KEY, attempt_of(store))
    assert report.metrics == {"val_bpb": 2.25}
    assert FolderStore(tmp_path).find(KEY) == report
    assert (store.folder(KEY) / "checkpoint.bin").read_bytes() == b"weights " * 50
    assert store.log(KEY) == "step:1/1\n"


@pytest.mark.parametrize(
    "report",
    [None, "", "{", "[]", "null", '{"stage": "train"}', '{"outputs": {}, "stage": "train", "seed": 1, "extra": 2}'],
)
def test_a_try_without_a_valid_report_publishes_nothing(tmp_path: Path, report: str | None) -> None:
    store = FolderStore(tmp_path)
    attempt = attempt_of(store)
    (attempt / "out" / "report.json").unlink()
    if report is not None:
        (attempt / "out" / "report.json").write_text(report, encoding="utf-8")
    with pytest.raises(ValueError, match="no valid report"):
        store.publish(KEY, attempt)
    assert list(store.stages.iterdir()) == []
    assert store.find(KEY) is None


def test_a_number_that_is_not_one_publishes_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    attempt = attempt_of(store)
    path = attempt / "out" / "report.json"
    path.write_text(path.read_text().replace("2.25", "NaN"), encoding="utf-8")
    with pytest.raises(ValueError, match="val_bpb is nan"):
        store.publish(KEY, attempt)
    assert store.find(KEY) is None


def test_a_publish_that_breaks_off_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    attempt = attempt_of(store)

    def killed(source: object, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            store.publish(KEY, attempt)
    assert list(store.stages.iterdir()) == []
    assert store.find(KEY) is None
    assert store.publish(KEY, attempt) == store.find(KEY)


def test_a_result_that_is_there_is_never_replaced_and_is_the_answer(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = store.publish(KEY, attempt_of(store))
    assert store.publish(KEY, attempt_of(store, text=b"other weights", bpb=9.0)) == first
    assert store.find(KEY) == first


def test_what_was_verified_is_not_read_again_until_a_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(folder: Path, name: str) -> FileRef:
        read.append(name)
        return file_ref(folder, name)

    monkeypatch.setattr(seals, "file_ref", counted)
    monkeypatch.setattr(seals, "SETTLED_NS", -(10**18))
    store = FolderStore(tmp_path)
    report = store.publish(KEY, attempt_of(store))
    assert store.find(KEY) == report
    assert read
    read.clear()
    assert store.find(KEY) == report
    assert read == []
    weights = store.folder(KEY) / "checkpoint.bin"
    before, changed = weights.stat(), b"x" + weights.read_bytes()[1:]
    while weights.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock ticks
        weights.write_bytes(changed)
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find(KEY) is None


def test_what_was_touched_a_moment_ago_is_verified_each_time(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.publish(KEY, attempt_of(store))
    assert store.find(KEY) is not None
    weights = store.folder(KEY) / "checkpoint.bin"
    flip(weights)  # perhaps within one tick of the clock
    assert store.find(KEY) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: flip(folder / "checkpoint.bin"),
    "a truncated output": lambda folder: os.truncate(folder / "checkpoint.bin", 7),
    "a grown output": lambda folder: (folder / "curve.json").write_bytes(b"[2.5, 2.25] "),
    "a deleted output": lambda folder: (folder / "curve.json").unlink(),
    "a deleted report": lambda folder: (folder / "report.json").unlink(),
    "a truncated report": lambda folder: os.truncate(folder / "report.json", 20),
    "an output that is a folder": lambda folder: become_a_folder(folder / "curve.json"),
    "another digit in the report": lambda folder: replace_in(folder / "report.json", "2.25", "2.24"),
    "a flipped bit in the log": lambda folder: flip(folder / "log.txt"),
    "a deleted log": lambda folder: (folder / "log.txt").unlink(),
    "a deleted key": lambda folder: (folder / "key.json").unlink(),
    "a truncated key": lambda folder: os.truncate(folder / "key.json", 5),
    "a deleted seal": lambda folder: (folder / "files.json").unlink(),
    "a flipped bit in the seal": lambda folder: flip(folder / "files.json"),
    "a seal without its last byte": lambda folder: os.truncate(
        folder / "files.json", (folder / "files.json").stat().st_size - 1
    ),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_result_is_set_aside_named_in_the_log_and_can_be_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], object]
) -> None:
    store = FolderStore(tmp_path)
    report = store.publish(KEY, attempt_of(store), {"parts": {}})
    harm(store.folder(KEY))
    with caplog.at_level(logging.WARNING):
        assert store.find(KEY) is None
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.name.startswith(KEY)
    assert KEY in caplog.text
    assert str(aside) in caplog.text
    assert not store.folder(KEY).exists()
    assert store.publish(KEY, attempt_of(store), {"parts": {}}) == report == store.find(KEY)


def test_a_result_of_a_version_that_did_not_seal_is_found_and_its_outputs_are_verified(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    report = store.publish(KEY, attempt_of(store))
    (store.folder(KEY) / "files.json").unlink()
    assert store.find(KEY) == report
    flip(store.folder(KEY) / "checkpoint.bin")
    assert store.find(KEY) is None


def test_damage_to_one_result_leaves_the_others_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    report = store.publish(KEY, attempt_of(store))
    store.publish("pack-1", attempt_of(store, "pack-1"))
    flip(store.folder("pack-1") / "checkpoint.bin")
    assert store.find("pack-1") is None
    assert store.find(KEY) == report


def test_publishing_over_a_damaged_result_replaces_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    report = store.publish(KEY, attempt_of(store))
    flip(store.folder(KEY) / "checkpoint.bin")
    assert store.publish(KEY, attempt_of(store)) == report
    assert store.find(KEY) == report


HOLDER = """
import sys
from pathlib import Path
from service.adapters.store_fs import FolderStore
with FolderStore(Path(sys.argv[1])).lock(sys.argv[2]) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def holder(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(home), KEY]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, None], ids=["SIGKILL", "SIGTERM", "normal end"])
def test_a_key_is_computed_by_one_process_and_free_after_any_end_of_it(
    tmp_path: Path, sign: signal.Signals | None
) -> None:
    store = FolderStore(tmp_path)
    with holder(tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with store.lock(KEY) as ours:
            assert not ours
        with store.lock("another-key") as ours:
            assert ours
        other.communicate() if sign is None else other.send_signal(sign)
        other.wait()
    with store.lock(KEY) as ours:
        assert ours


def test_a_lock_we_hold_is_refused_to_another_process_and_to_ourselves(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with store.lock(KEY) as ours:
        assert ours
        with holder(tmp_path) as other:
            assert other.communicate()[0] == "False\n"
        with store.lock(KEY) as again:
            assert not again
    with store.lock(KEY) as ours:
        assert ours


def test_an_error_under_the_lock_frees_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(RuntimeError, match="boom"), store.lock(KEY):
        raise RuntimeError("boom")
    with store.lock(KEY) as ours:
        assert ours


def test_every_try_has_a_number_and_is_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    tries = [store.begin(KEY) for _ in range(11)]
    assert [path.relative_to(tmp_path) for path in tries] == [Path("attempts") / KEY / str(n) for n in range(1, 12)]
    assert store.begin("pack-1").name == "1"
    attempt = attempt_of(store)
    store.publish(KEY, attempt)
    assert (attempt / "log.txt").read_text(encoding="utf-8") == "step:1/1\n"
    assert sorted(int(path.name) for path in (tmp_path / "attempts" / KEY).iterdir()) == list(range(1, 13))


def test_the_number_of_the_newest_try_is_told_also_beyond_nine_and_by_another_store(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.attempts(KEY) == 0
    for number in range(1, 12):
        assert store.begin(KEY).name == str(number)
        assert store.attempts(KEY) == FolderStore(tmp_path).attempts(KEY) == number
    (tmp_path / "attempts" / KEY / "notes").mkdir()
    (tmp_path / "attempts" / "a-file").write_bytes(b"")
    assert [store.attempts(key) for key in (KEY, "a-file", "pack-1")] == [11, 0, 0]
    assert not (tmp_path / "attempts" / "pack-1").exists(), "asking begins nothing"


def test_a_result_that_was_copied_from_another_store_counts_no_try(tmp_path: Path) -> None:
    store, other = FolderStore(tmp_path / "here"), FolderStore(tmp_path / "there")
    report = store.publish(KEY, attempt_of(store))
    shutil.copytree(store.folder(KEY), other.folder(KEY))
    assert other.find(KEY) == report
    assert (store.attempts(KEY), other.attempts(KEY)) == (1, 0)
    assert other.begin(KEY).name == "1"


def test_what_runs_is_what_is_locked_tried_and_not_finished(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for key in ("a", "b", "c", "c"):
        store.begin(key)
    store.publish("d", attempt_of(store, "d"))
    assert store.running() == {}
    with store.lock("b"), store.lock("c"), store.lock("d"), store.lock("e"):
        attempts = tmp_path / "attempts"
        assert store.running() == {"b": attempts / "b" / "1" / "log.txt", "c": attempts / "c" / "2" / "log.txt"}
    assert store.running() == {}


def test_a_home_that_cannot_be_written_names_the_variable_that_sets_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="CADDIE_HOME") as refused:
        FolderStore(tmp_path / "file" / "home")
    assert str(tmp_path / "file" / "home") in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_of_somebody_else_names_the_variable_that_sets_it(tmp_path: Path) -> None:
    FolderStore(tmp_path)
    (tmp_path / "locks").chmod(0o500)
    try:
        with pytest.raises(StoreError, match="CADDIE_HOME"):
            FolderStore(tmp_path)
    finally:
        (tmp_path / "locks").chmod(0o700)


def test_a_home_that_is_made_on_first_use_has_no_probe_left(tmp_path: Path) -> None:
    FolderStore(tmp_path / "a" / "b")
    assert [path for path in (tmp_path / "a" / "b").rglob("*") if path.is_file()] == []


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_says_what_to_do_and_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    attempt = attempt_of(store)
    for place, name, act in (
        (Path, "write_bytes", lambda: store.publish(KEY, attempt)),
        (os, "rename", lambda: store.publish(KEY, attempt)),
        (Path, "mkdir", lambda: store.begin(KEY)),
        (os, "open", lambda: store.lock("pack-1").__enter__()),
        (Path, "write_bytes", lambda: FolderStore(tmp_path)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(StoreError, match=r"No space left on device.*free some space.*same command again"):
                act()
    assert store.find(KEY) is None
    assert store.publish(KEY, attempt) == store.find(KEY)


def test_a_report_on_disk_is_plain_json_with_size_and_digest_of_every_output(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.publish(KEY, attempt_of(store))
    data = json.loads((store.folder(KEY) / "report.json").read_text(encoding="utf-8"))
    shell = subprocess.run(["sha256sum", store.folder(KEY) / "checkpoint.bin"], capture_output=True, text=True)
    assert data["outputs"]["checkpoint.bin"]["sha256"] == shell.stdout.split()[0]
    assert data["outputs"]["checkpoint.bin"]["size_bytes"] == 400


def test_what_a_key_was_made_of_lies_beside_the_report_and_changes_nothing_else(tmp_path: Path) -> None:
    plain, telling = FolderStore(tmp_path / "plain"), FolderStore(tmp_path / "telling")
    made_of = {"parts": {"train": "ab", "seed": "42"}, "values": {"train": {"steps": 7}}, "sources": {}, "gang_s": 9.5}
    plain.publish(KEY, attempt_of(plain))
    report = telling.publish(KEY, attempt_of(telling), made_of)
    files = {path.name: path.read_bytes() for path in telling.folder(KEY).iterdir()}
    seal, own = json.loads(files.pop("files.json")), files.pop("key.json")
    assert json.loads(own) == {**made_of, "sealed": True}
    assert seal.pop("key.json") == {"size_bytes": len(own), "sha256": hashlib.sha256(own).hexdigest()}
    plainly = {path.name: path.read_bytes() for path in plain.folder(KEY).iterdir()}
    assert seal == json.loads(plainly.pop("files.json"))
    assert files == plainly
    assert telling.find(KEY) == plain.find(KEY) == report
    one, old = telling.made_of(KEY), plain.made_of(KEY)
    assert one is not None
    assert old is not None
    assert (one.parts, one.values, one.gang_s, one.company) == (made_of["parts"], made_of["values"], 9.5, 1)
    assert (old.parts, old.gang_s) == ({}, 1.5 + 4.0)
    assert telling.made_of("train-ffffffffffffffff") is None


def test_the_newest_of_a_kind_come_first_and_no_other_kind_is_among_them(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    keys = [f"train-{number:016x}" for number in range(4)]
    for age, key in enumerate([*keys, "trainer-0123456789abcdef"]):
        store.publish(key, attempt_of(store, key))
        os.utime(store.folder(key), (1000 + age, 1000 + age))
    assert [one.key for one in store.newest(Stage.TRAIN, 3)] == keys[:0:-1]
    assert store.newest(Stage.PACK, 3) == []
    assert store.published() == {*keys, "trainer-0123456789abcdef"}
