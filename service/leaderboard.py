"""The field's leaderboard as data: who was on the frontier, what a candidate has to beat, and MLflow runs of it all."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.field_records import FieldRecord, all_records
from service.inference import FIELD_DENSITIES, seeds_needed
from service.shown import ConfigView, ExperimentView, RunStatus, RunView
from service.stats import Sample
from service.verdicts import Rules, RulesVerdict, Side, judge

EXPERIMENT = "leaderboard"
"""The page of MLflow that the records are imported into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One record, and whether it was the best on its day."""

    record: FieldRecord
    frontier: bool
    before: FieldRecord | None
    """The frontier that it met; None for the first, and for those that were never on the leaderboard."""
    verdicts: tuple[RulesVerdict, ...]
    """Against ``before``, by every rule set asked for; empty off the frontier."""

    @property
    def gain_bpb(self) -> float | None:
        """Over the frontier that it met; negative is better."""
        return self.record.claimed.mean - self.before.claimed.mean if self.before else None


def side_of(record: FieldRecord) -> Side:
    """A record as one side of a test."""
    return Side(name=record.title, bpb=record.claimed, density=FIELD_DENSITIES.get(record.tokenizer))


def rows_of(rules: Sequence[Rules] = ()) -> tuple[Row, ...]:
    """Every record, oldest first. The frontier is chronological and of means; open pull requests never belong to it."""
    rows: list[Row] = []
    best: FieldRecord | None = None
    for record in all_records():
        counts = record.state != "open"
        ahead = counts and (best is None or record.claimed.mean < best.claimed.mean)
        before = best if counts else None
        verdicts = [judge(one, side_of(record), side_of(before)) for one in rules] if ahead and before else []
        rows.append(Row(record=record, frontier=ahead, before=before, verdicts=tuple(verdicts)))
        best = record if ahead else best
    return tuple(rows)


def frontier_on(day: datetime.date | None = None) -> FieldRecord:
    """The best record on a day, or of all.

    Raises:
        ValueError: the first one is of later.
    """
    there = [row.record for row in rows_of() if row.frontier and (day is None or row.record.date <= day)]
    if not there:
        raise ValueError(f"the leaderboard begins on {all_records()[0].date}, so there is no frontier on {day}")
    return there[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Scores that somebody wants on the leaderboard, beside what they would have to beat."""

    side: Side
    frontier: FieldRecord
    verdicts: tuple[RulesVerdict, ...]
    seeds_needed: int | None
    """How many seeds a side the README's rule would need to see the gain that was measured, with a power of 0.8 and the
    candidate's own spread; None where no number would do, or no spread is known."""

    @property
    def gain_bpb(self) -> float:
        """Negative is better."""
        return self.side.bpb.mean - self.frontier.claimed.mean

    def to_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "name": self.side.name,
            "val_bpb": {str(seed): value for seed, value in self.side.bpb.values.items()},
            **numbers_of(self.side.bpb),
            "against": self.frontier.title,
            "gain_bpb": self.gain_bpb,
            "verdicts": [one.to_json() for one in self.verdicts],
            "seeds_needed": self.seeds_needed,
        }


def try_candidate(side: Side, rules: Sequence[Rules], day: datetime.date | None = None) -> Candidate:
    """Judge a candidate against the frontier (of ``day``).

    Raises:
        ValueError: there is no frontier on that day.
    """
    frontier = frontier_on(day)
    margin = side.density.bpb(0.005) if side.density else 0.0
    gain = frontier.claimed.mean - side.bpb.mean - margin
    needed = seeds_needed(gain, side.bpb.sd) if side.bpb.sd and side.density else None
    verdicts = tuple(judge(one, side, side_of(frontier)) for one in rules)
    return Candidate(side=side, frontier=frontier, verdicts=verdicts, seeds_needed=needed)


def numbers_of(sample: Sample) -> dict[str, float | None]:
    """Mean, sd (n - 1), half the 95 % interval and n."""
    return {"mean_bpb": sample.mean, "sd_bpb": sample.sd, "ci95_bpb": sample.ci95, "n": sample.n}


def row_json(row: Row) -> dict[str, Any]:
    """A row for a machine."""
    record = row.record
    return {
        "pr": record.pr,
        "state": record.state,
        "date": record.date.isoformat(),
        "author": record.author,
        "folder": record.folder,
        "tokenizer": record.tokenizer,
        "evidence": record.evidence,
        "frontier": row.frontier,
        "score": list(record.scores)[-1],
        "val_bpb": {str(seed): value for seed, value in record.claimed.values.items()},
        "artifact_bytes": {str(seed): size for seed, size in record.artifact_bytes.items()},
        **numbers_of(record.claimed),
        "against": row.before.title if row.before else None,
        "gain_bpb": row.gain_bpb,
        "verdicts": [one.to_json() for one in row.verdicts],
    }


def leaderboard_view(name: str = EXPERIMENT) -> ExperimentView:
    """Every record as a run with a run of each seed below it, named as our own runs name their numbers."""
    return ExperimentView(name=name, configs=tuple(_config(row) for row in rows_of()))


def _config(row: Row) -> ConfigView:
    record = row.record
    sample = record.claimed
    key = f"field/{record.pr or record.folder}"
    midnight = datetime.datetime.combine(record.date, datetime.time(), datetime.UTC)
    begun = round(1000 * midnight.timestamp())
    params = {"pr": str(record.pr or "none"), "author": record.author, "tokenizer": record.tokenizer}
    common = {
        "caddie.score": list(record.scores)[-1],
        "caddie.recipe": f"openai/parameter-golf {record.title}",
        "caddie.tokenizer": record.tokenizer,
        "caddie.source": record.evidence,
        "caddie.state": record.state,
    }
    tags = common | {
        "caddie.level": "config",
        "caddie.seeds": ", ".join(map(str, sample.values)),
        "caddie.frontier": str(row.frontier).lower(),
        "caddie.baseline": row.before.title if row.before else "",
    }
    metrics = {"n": sample.n, "val_bpb_mean": sample.mean, "val_bpb_sd": sample.sd, "val_bpb_ci95": sample.ci95}
    metrics |= {"artifact_bytes_max": max(record.artifact_bytes.values(), default=None)}

    def run(what: str, title: str, numbers: Mapping[str, float | None], labels: Mapping[str, str]) -> RunView:
        return RunView(
            key=what,
            name=title,
            status=RunStatus.FINISHED,
            params=params,
            metrics={name: float(value) for name, value in numbers.items() if value is not None},
            tags={name: label for name, label in labels.items() if label},
            start_ms=begun,
            end_ms=begun,
        )

    seeds = []
    for seed, value in sample.values.items():
        scores = {f"{score}/val_bpb": one.values.get(seed) for score, one in record.scores.items()}
        numbers = {"val_bpb": value, "artifact_bytes": record.artifact_bytes.get(seed), **scores}
        labels = common | {"caddie.level": "seed", "caddie.seed": str(seed)}
        seeds.append(run(f"{key}/{seed}", f"s{seed} {record.title}", numbers, labels))
    return ConfigView(run=run(key, record.title, metrics, tags), seeds=tuple(seeds))
