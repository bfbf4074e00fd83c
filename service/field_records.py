"""The field's records: val_bpb and bytes of every seed, with the pull request each comes from (``service/data``)."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from service.stats import Sample

FILE = Path(__file__).parent / "data" / "merged_records.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldRecord:
    """One record of openai/parameter-golf, as its own logs, files or pull request have it."""

    pr: int | None
    """Number of the pull request; None for the organisers' baseline."""
    state: Literal["merged", "listed", "open"]
    """``listed``: on the leaderboard without having been merged itself; ``open``: neither."""
    date: datetime.date
    folder: str
    """Below ``records/track_10min_16mb``; empty when only the pull request was read."""
    author: str
    tokenizer: str
    evidence: str = "logs"
    """Where the numbers stand: ``logs``, or what was written about them."""
    artifact_bytes: Mapping[int, int] = field(default_factory=dict)
    """Code and model together, of the seeds where that is known."""
    scores: Mapping[str, Sample]
    """Score -> val_bpb by seed, in the order of the pipeline; all of one seed are of the same trained artifact."""

    def __post_init__(self) -> None:
        if self.state not in ("merged", "listed", "open"):
            raise ValueError(f"{self.title}: state must be 'merged', 'listed' or 'open', got {self.state!r}")
        for name, sample in self.scores.items():
            if not sample.n or not all(0 < value < 9 for value in sample.values.values()):
                raise ValueError(f"{self.title}: {name} must be bits per byte by seed, got {dict(sample.values)}")
        if not self.scores:
            raise ValueError(f"{self.title} has no score")

    @property
    def title(self) -> str:
        """``#1019 abaybektursun``."""
        return f"#{self.pr} {self.author}" if self.pr else f"baseline {self.author}"

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
    """The records whose logs were read, oldest first: what is known of noise and gains rests on these alone.

    Raises:
        ValueError: the file has a row that doesn't fit.
    """
    return tuple(record for record in all_records() if record.evidence == "logs")


@cache
def all_records() -> tuple[FieldRecord, ...]:
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
    sizes = {int(seed): int(size) for seed, size in row["artifact_bytes"].items()}
    date = datetime.date.fromisoformat(row["date"])
    return FieldRecord(**{**row, "date": date, "scores": scores, "artifact_bytes": sizes})
