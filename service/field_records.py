"""The field's merged records: val_bpb of every seed, with the pull request each comes from (``service/data``)."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from service.stats import Sample

FILE = Path(__file__).parent / "data" / "merged_records.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldRecord:
    """One record folder of openai/parameter-golf, as its own logs have it."""

    pr: int | None
    """Number of the pull request; None for the organisers' baseline."""
    state: Literal["merged", "open"]
    date: datetime.date
    folder: str
    author: str
    tokenizer: str
    scores: Mapping[str, Sample]
    """Score -> val_bpb by seed, in the order of the pipeline; all of one seed are of the same trained artifact."""

    def __post_init__(self) -> None:
        if self.state not in ("merged", "open"):
            raise ValueError(f"{self.folder}: state must be 'merged' or 'open', got {self.state!r}")
        for name, sample in self.scores.items():
            if not sample.n or not all(0 < value < 9 for value in sample.values.values()):
                raise ValueError(f"{self.folder}: {name} must be bits per byte by seed, got {dict(sample.values)}")
        if not self.scores:
            raise ValueError(f"{self.folder} has no score")

    @property
    def claimed(self) -> Sample:
        """The score that the record claims: its last."""
        return list(self.scores.values())[-1]

    @property
    def gains(self) -> tuple[Sample, ...]:
        """What each score gained over the one before, seed by seed on the same artifacts; negative is better."""
        return tuple(after.minus(before) for before, after in pairwise(self.scores.values()))


@cache
def field_records() -> tuple[FieldRecord, ...]:
    """Every record of the data file, oldest first.

    Raises:
        ValueError: the file has a row that doesn't fit.
    """
    rows = json.loads(FILE.read_text(encoding="utf-8"))["records"]
    return tuple(sorted((_record(row) for row in rows), key=lambda record: (record.date, record.pr or 0)))


def _record(row: Mapping[str, Any]) -> FieldRecord:
    scores = {
        name: Sample(values={int(seed): float(value) for seed, value in by_seed.items()})
        for name, by_seed in row["scores"].items()
    }
    return FieldRecord(**{**row, "date": datetime.date.fromisoformat(row["date"]), "scores": scores})
