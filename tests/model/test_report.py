from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.report import FileRef, StageReport, file_ref, read_report, report_from_json, write_json, write_report

finite = st.floats(allow_nan=False, allow_infinity=False)
refs = st.builds(FileRef, path=st.text(), size_bytes=st.integers(0), sha256=st.text("0123456789abcdef", min_size=64))
reports = st.builds(
    StageReport,
    stage=st.text(),
    seed=st.integers(0, 2**63),
    elapsed_s=finite,
    metrics=st.dictionaries(st.text(), finite),
    outputs=st.dictionaries(st.text(), refs),
    facts=st.dictionaries(st.text(), st.text() | st.integers() | finite),
)
REPORT = StageReport(
    stage="train",
    seed=7,
    elapsed_s=1.5,
    metrics={"train_s": 1.25},
    outputs={"a.bin": FileRef(path="a.bin", size_bytes=3, sha256="00")},
    facts={"host": "here"},
)


@given(reports)
def test_a_report_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, report: StageReport) -> None:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, report)
    assert read_report(folder) == report
    assert [path.name for path in folder.iterdir()] == ["report.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_diverged_metric_has_no_report(value: float) -> None:
    with pytest.raises(ValueError, match=r"train.*loss_nats"):
        StageReport(stage="train", seed=1, elapsed_s=1.0, metrics={"ok": 1.0, "loss_nats": value})


def test_file_ref_has_size_and_sha256_of_the_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "x.bin").write_bytes(data)
    expected = FileRef(path="x.bin", size_bytes=256_000, sha256=hashlib.sha256(data).hexdigest())
    assert file_ref(tmp_path, "x.bin") == expected


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    for bad in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, bad)
        assert json.loads(path.read_text()) == {"old": 1}
        assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_reads_all_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with open(path, encoding="utf-8") as reader:
        write_json(path, {"new": 2})
        assert json.load(reader) == {"old": 1}
    assert json.loads(path.read_text()) == {"new": 2}


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [2, 3]})
    write_json(tmp_path / "b", {"y": [2, 3], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_report_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"report\.json: no valid report"):
        read_report(tmp_path)


def test_a_report_cut_short_anywhere_is_refused_with_its_path(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    path = tmp_path / "report.json"
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"report\.json: no valid report"):
            read_report(tmp_path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[]", b"null", b"3", b'"text"', b"{}"])
def test_something_else_than_a_report_is_refused_with_its_path(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "report.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"report\.json: no valid report"):
        read_report(tmp_path)


def test_a_report_without_a_field_or_with_an_unknown_one_is_refused() -> None:
    data = {"stage": "train", "seed": 1, "elapsed_s": 1.0, "metrics": {}, "outputs": {}, "facts": {}}
    assert report_from_json(data) == StageReport(stage="train", seed=1, elapsed_s=1.0)
    for name in ("stage", "seed", "elapsed_s", "outputs"):
        with pytest.raises(ValueError, match="not a stage report"):
            report_from_json({key: value for key, value in data.items() if key != name})
    with pytest.raises(ValueError, match="not a stage report"):
        report_from_json({**data, "status": "done"})


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": [1.0]},
        {"metrics": {"val_bpb": "1.2"}},
        {"metrics": {"val_bpb": float("nan")}},
        {"outputs": []},
        {"outputs": {"a": {"path": "a"}}},
        {"seed": "seven"},
        {"elapsed_s": None},
        {"stage": 3},
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(change: dict[str, Any]) -> None:
    data = {"stage": "train", "seed": 1, "elapsed_s": 1.0, "metrics": {}, "outputs": {}, "facts": {}}
    with pytest.raises(ValueError, match="stage"):
        report_from_json({**data, **change})
