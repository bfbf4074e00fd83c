"""What goes into a record folder, and its JSON form ``reports.json``, from which all other numbers are taken."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.report import StageReport
from service.audit import audit_digest, audit_of
from service.errors import RecordError
from service.record.against import against_json
from service.record.changes import changes_of
from service.record.credits import credits_of
from service.record.facts import About, Facts, facts_of
from service.results import GroupResult, SeedResult
from service.spec import RunSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Everything a record folder is made from. Numbers come from the reports in ``group`` and from nowhere else."""

    name: str
    author: str
    github_id: str
    date: str
    """YYYY-MM-DD."""
    group: GroupResult
    compared: tuple[GroupResult, ...] = ()
    """All groups of the sweep that chose the config, ``group`` among them; empty when nothing was compared."""
    baseline: RunSpec
    """The recipe that the config's differences are listed from."""
    corpus_digest: str
    git_sha: str
    git_dirty: bool
    track: str
    """The leaderboard it is for."""
    code: str
    """``train_gpt.py``, as it ships and counts."""
    readable: str
    """The same program before it was packed."""
    logs: Mapping[int, str]
    """Seed -> log."""
    curves: Mapping[int, tuple[float, ...]]
    """Seed -> training loss of each step, in nats."""
    audit_key: str
    audit: str
    """``audit.json`` of the headline's scorer."""
    non_record: tuple[str, ...] = ()
    """The broken rules, as :func:`service.record.checks.broken` words them, that are admitted."""

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name.splitlines()) != 1:
            raise RecordError(f"a record's name is one line of text, got {self.name!r}")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.date):
            raise RecordError(f"a record's date is YYYY-MM-DD, got {self.date!r}")


def reports_of(record: Record) -> dict[str, Any]:
    """``reports.json`` without its list of files: who and where, what it is held against, the compared scores, every
    report of every seed."""
    spec = record.group.spec
    return {
        "about": dataclasses.asdict(about(record)),
        "against": against_json(record.track, spec.corpus, record.date),
        "compared": [_compared(group) for group in record.compared],
        "changes": [dataclasses.asdict(change) for change in changes_of(record.baseline, spec)],
        "credits": [dataclasses.asdict(credit) for credit in credits_of(spec)],
        "seeds": {str(seed): _stages(result) for seed, result in record.group.seeds.items()},
    }


def record_facts(record: Record) -> Facts:
    """The facts of a record that is to be written.

    Raises:
        ValueError: the reports or the audit lack something.
    """
    return facts_of(reports_of(record), record.code.encode(), audit=audit_of(json.loads(record.audit)).rules)


def about(record: Record) -> About:
    """The facts of a record that aren't measured."""
    spec, group = record.group.spec, record.group
    return About(
        name=record.name,
        author=record.author,
        github_id=record.github_id,
        date=record.date,
        blurb=spec.notes or record.name,
        track=record.track,
        non_record=list(record.non_record),
        recipe=spec.name,
        title=group.title,
        baseline=record.baseline.name,
        spec_digest=spec.digest(),
        headline=str(group.headline),
        audit_key=record.audit_key,
        audit_digest=audit_digest(spec, group.headline),
        artifact_cap_bytes=spec.budget.artifact_bytes,
        train_cap_s=float(spec.budget.train_s),
        eval_cap_s=float(spec.budget.eval_s),
        ranks=spec.gang.ranks,
        threads=spec.gang.threads,
        device=spec.gang.device,
        corpus=spec.corpus,
        corpus_digest=record.corpus_digest,
        git_sha=record.git_sha,
        git_dirty=record.git_dirty,
    )


def _compared(group: GroupResult) -> dict[str, Any]:
    return {
        "title": group.title,
        "headline": str(group.headline),
        "leaks": group.leaks,
        "val_bpb": {str(seed): round(value, 8) for seed, value in group.bpb.values.items()},
        "unfinished": sorted(group.seeds.keys() - group.bpb.values.keys()),
    }


def _stages(result: SeedResult) -> dict[str, Any]:
    reports = ((planned, result.reports[planned.stage]) for planned in result.plan)
    return {str(planned.stage): {"key": planned.key, **_report(report)} for planned, report in reports}


def _report(report: StageReport) -> dict[str, Any]:
    outputs = {name: {"size_bytes": ref.size_bytes, "sha256": ref.sha256} for name, ref in report.outputs.items()}
    return {
        "metrics": dict(report.metrics),
        "facts": {name: fact for name, fact in report.facts.items() if name != "host"},
        "outputs": outputs,
    }
