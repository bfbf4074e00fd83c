from __future__ import annotations

import datetime
import re
from pathlib import Path

import numpy as np
import pytest

from service.field_records import FieldRecord, all_records, field_records
from service.record.logs import read_log
from service.stats import Sample

LOGS = Path(__file__).resolve().parents[3] / "shared" / "records"
MERGED = [record for record in field_records() if record.state == "merged"]


def test_every_record_has_a_source_and_they_come_oldest_first() -> None:
    assert len(MERGED) == 13
    assert [record.pr for record in field_records() if record.state == "open"] == [1303, 1423]
    assert [record.folder for record in MERGED if record.pr is None] == ["2026-03-17_NaiveBaseline"]
    dates = [record.date for record in field_records()]
    assert dates == sorted(dates)
    assert all(record.folder.startswith(record.date.isoformat()) for record in field_records())


def test_rows_from_readmes_and_pull_requests_say_so_and_have_the_means_that_those_print() -> None:
    others = {record.pr: record for record in all_records() if record.evidence != "logs"}
    assert all(record.state in ("merged", "listed") for record in others.values())
    printed = {52: 1.20136009, 1493: 1.08100, 1529: 1.0758, 1729: 1.06780094, 1736: 1.06549, 1769: 1.06453}
    printed |= {1868: 1.06145, 1855: 1.06107587, 2014: 1.05759252}
    assert others.keys() == printed.keys()
    for pr, mean in printed.items():
        digits = len(str(mean).partition(".")[2])
        assert others[pr].claimed.mean == pytest.approx(mean, abs=10**-digits)


def test_bytes_are_of_known_seeds_and_under_the_cap() -> None:
    for record in all_records():
        assert record.artifact_bytes.keys() <= record.claimed.values.keys()
        assert all(15_000_000 < size <= 16_000_000 for size in record.artifact_bytes.values())


@pytest.mark.parametrize(
    ("pr", "mean", "sd"),
    [
        (162, 1.14582, 0.00082),
        (1019, 1.11473509, 0.00035387),
        (1394, 1.08563, 0.0007),
        (1413, 1.08279384, None),
        (1514, 1.07983273, 0.00049601),
        (1626, 1.07193, None),
        (1787, 1.06335, None),
        (1423, 1.07912726, 0.00123751),
    ],
)
def test_means_and_spreads_are_those_that_the_submissions_claim(pr: int, mean: float, sd: float | None) -> None:
    claimed = next(record.claimed for record in field_records() if record.pr == pr)
    assert claimed.mean == pytest.approx(mean, abs=6e-6)
    if sd is not None:
        assert claimed.sd == pytest.approx(sd, abs=3e-5)


@pytest.mark.skipif(not LOGS.is_dir(), reason="the field's logs are not here")
@pytest.mark.parametrize("record", field_records(), ids=lambda record: record.folder)
def test_every_number_stands_in_the_records_own_logs(record: FieldRecord) -> None:
    folder = next(path for path in LOGS.iterdir() if path.name.endswith(record.folder))
    printed: dict[int, set[float]] = {}
    sizes: dict[int, set[int]] = {}
    for path in folder.rglob("*.log"):
        text = path.read_text(encoding="utf-8", errors="replace")
        numbers = {float(found) for found in re.findall(r"val_bpb:(\d\.\d+)", text)}
        seed = read_log(text).seed
        if seed is not None:
            printed.setdefault(seed, set()).update(numbers)
            sizes.setdefault(seed, set()).update(map(int, re.findall(r"submission size[^:]*: (\d+) bytes", text)))
    for sample in record.scores.values():
        assert all(value in printed[seed] for seed, value in sample.values.items())
    assert all(size in sizes[seed] for seed, size in record.artifact_bytes.items())


def test_gains_are_paired_seed_by_seed() -> None:
    record = next(record for record in field_records() if record.pr == 549)
    _, ttt = record.gains
    sliding, after = record.scores["sliding"].values, record.scores["ttt"].values
    assert ttt.values == {seed: after[seed] - sliding[seed] for seed in (42, 1337, 2025)}
    assert np.mean(list(ttt.values.values())) == pytest.approx(-0.0025, abs=1e-4)  # as #549 says


@pytest.mark.parametrize(
    ("state", "scores", "message"),
    [
        ("closed", {"ttt": Sample(values={1: 1.0})}, "'closed'"),
        ("merged", {}, "no score"),
        ("merged", {"ttt": Sample(values={})}, "ttt must be bits per byte"),
        ("merged", {"ttt": Sample(values={1: 15_000_000.0})}, "15000000"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(state: str, scores: dict[str, Sample], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FieldRecord(
            pr=1,
            state=state,  # type: ignore[arg-type]
            date=datetime.date(2026, 4, 1),
            folder="x",
            author="a",
            tokenizer="sp1024",
            scores=scores,
        )
