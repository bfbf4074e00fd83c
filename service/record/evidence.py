"""What a record folder holds, read without trust: logs, code and reports, and a line for all that is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from model.audit.rules import AUDIT_FILE, AuditRule
from model.job import ARTIFACT
from model.stages import Stage
from service.audit import audit_of, verdicts
from service.record.compare import json_differences, read_object, read_text
from service.record.facts import Facts, facts_of
from service.record.logs import LABELS, SeedLog, read_log
from service.spec import Budget

CODE, SUBMISSION, README, REPORTS, FIGURE = "train_gpt.py", "submission.json", "README.md", "reports.json", "figure.png"
REQUIREMENTS = "requirements.txt"
LOG_NAME = re.compile(r"train_seed(0|[1-9]\d{0,18})\.log")
T = TypeVar("T")


def log_name(seed: int) -> str:
    """The file that holds a seed's log."""
    return f"train_seed{seed}.log"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """A folder as read."""

    reports: Mapping[str, Any] | None
    """None when ``reports.json`` can't be used."""
    logs: Mapping[int, SeedLog]
    """The logs that are whole."""
    facts: Facts | None
    """From the whole logs and the code file; None without any."""
    complete: bool
    """Whether every seed has a whole log."""
    wrong: tuple[str, ...]


def read_folder(folder: Path) -> Evidence:
    """Read a record folder; never raises for what is in it."""
    wrong: list[str] = []
    code = attempt(wrong, CODE, lambda: read_text(folder / CODE).encode())
    reports = attempt(wrong, REPORTS, lambda: _reports(folder / REPORTS))
    expected = {int(seed) for seed in reports["seeds"]} if reports else set()
    audit = attempt(wrong, AUDIT_FILE, lambda: _audit(folder, reports["about"])) if reports else None
    wrong += audit.wrong if audit else ()
    logs = _logs(folder, expected, wrong)
    gaps = {seed: list(_gaps(log, _stages(reports, seed, log))) for seed, log in logs.items()}
    wrong += (f"{log_name(seed)}: {gap}" for seed, missing in gaps.items() for gap in missing)
    usable = {seed: log for seed, log in logs.items() if not gaps[seed] and (not reports or seed in expected)}
    facts = (
        attempt(wrong, "logs", lambda: _facts(reports, code, usable, audit.rules if audit else ())) if usable else None
    )
    complete = facts is not None and usable.keys() == expected | logs.keys()
    return Evidence(reports=reports, logs=usable, facts=facts, complete=complete, wrong=tuple(wrong))


def attempt(wrong: list[str], place: str, read: Callable[[], T]) -> T | None:
    """What ``read`` returns; on its ValueError None, and a line in ``wrong``."""
    try:
        return read()
    except ValueError as error:
        wrong.append(f"{place}: {error}")
        return None


def _reports(path: Path) -> dict[str, Any]:
    """``reports.json``, known to have the shape of one."""
    reports = read_object(path)
    facts_of(reports, b"")
    if not isinstance(reports.get("files"), dict) or any(str(int(seed)) != seed for seed in reports["seeds"]):
        raise ValueError("no list of files, or a seed that is no number")
    return reports


def _logs(folder: Path, expected: set[int], wrong: list[str]) -> dict[int, SeedLog]:
    there = {int(found[1]) for path in folder.glob("train_seed*.log") if (found := LOG_NAME.fullmatch(path.name))}
    if expected:
        wrong += [f"{log_name(seed)}: a log of a seed that {REPORTS} doesn't have" for seed in sorted(there - expected)]
    if not there | expected:
        wrong.append("train_seed<N>.log: missing, for every seed")
    logs = {}
    for seed in sorted(there | expected):
        text = attempt(wrong, log_name(seed), partial(read_text, folder / log_name(seed)))
        if text is not None:
            logs[seed] = read_log(text)
    return logs


def _stages(reports: Mapping[str, Any] | None, seed: int, log: SeedLog) -> list[Stage]:
    """The scores that a log must have."""
    if reports and str(seed) in reports["seeds"]:
        return [stage for stage in LABELS if stage in reports["seeds"][str(seed)]]
    return [stage for stage, label in LABELS.items() if label in log.finals]


def _gaps(log: SeedLog, stages: list[Stage]) -> Iterator[str]:
    needed = {
        "step or stopping_early line": log.steps,
        "Serialized model line": log.model_bytes,
        "final score": stages or None,
    }
    yield from (f"no {what}" for what, value in needed.items() if not value)
    for label in (LABELS[stage] for stage in stages):
        if label not in log.finals:
            yield f"no line {label} with val_loss and val_bpb"
        elif log.finals[label].eval_ms is None:
            yield f"no eval_time in a plain line {label} that rounds the _exact one"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvidence:
    """``audit.json`` as read."""

    rules: tuple[AuditRule, ...]
    wrong: tuple[str, ...]


def _audit(folder: Path, about: Mapping[str, Any]) -> AuditEvidence:
    """The verdicts that the evidence in ``audit.json`` leads to, and where the file says something else."""
    data = read_object(folder / AUDIT_FILE)
    audit = audit_of(data)
    said = {row["rule"]: {name: row.get(name) for name in ("kept", "because")} for row in data["rules"]}
    wrong = [*json_differences({"clean": data.get("clean"), **said}, verdicts(audit), AUDIT_FILE)]
    if audit.config_digest != about["audit_digest"]:
        wrong.append(f"{AUDIT_FILE}: is of config {audit.config_digest}, {REPORTS} is of {about['audit_digest']}")
    return AuditEvidence(rules=audit.rules, wrong=tuple(wrong))


def _facts(
    reports: Mapping[str, Any] | None,
    code: bytes | None,
    logs: Mapping[int, SeedLog],
    audit: tuple[AuditRule, ...],
) -> Facts:
    reports = reports or stand_in(logs)
    kept = {seed: stages for seed, stages in reports["seeds"].items() if int(seed) in logs}
    facts = facts_of({**reports, "seeds": kept}, code or b"", logs, audit)
    # Without the code file its size is only what the logs say.
    return facts if code is not None else replace(facts, code_bytes=max(log.code_bytes or 0 for log in logs.values()))


def stand_in(logs: Mapping[int, SeedLog]) -> dict[str, Any]:
    """As much of ``reports.json`` as logs alone can give; its blanks are not compared with anything."""
    shared = [stage for stage, label in LABELS.items() if all(label in log.finals for log in logs.values())]
    cap = Budget()
    texts = (
        "name",
        "author",
        "github_id",
        "date",
        "blurb",
        "recipe",
        "title",
        "baseline",
        "spec_digest",
        "audit_key",
        "audit_digest",
    )
    about = dict.fromkeys((*texts, "device", "corpus", "corpus_digest", "git_sha"), "") | {
        "track": "",
        "non_record": [],
        "headline": str(shared[-1]) if shared else "",
        "artifact_cap_bytes": cap.artifact_bytes,
        "train_cap_s": cap.train_s,
        "eval_cap_s": cap.eval_s,
        "ranks": 0,
        "threads": 0,
        "git_dirty": False,
    }
    blank: dict[str, Any] = {"key": "", "facts": {"hardware": "", "torch": ""}, "outputs": {ARTIFACT: {"sha256": ""}}}
    measured = {
        Stage.TRAIN: {"train_steps": 0, "train_s": 0.0},
        Stage.PACK: {"model_bytes": 0},
    } | {
        stage: dict.fromkeys(("val_loss_nats", "val_bpb", "eval_s"), 0.0)
        | dict.fromkeys(("tokens", "text_bytes", "scored_twice", "exposed"), 0)
        for stage in shared
    }
    stages = {str(stage): {**blank, "metrics": metrics} for stage, metrics in measured.items()}
    nothing: dict[str, Any] = {"compared": [], "changes": [], "credits": []}
    nothing["against"] = {"record": None, "alike": None, "because": "", "rules": []}
    return {"about": about, **nothing, "seeds": {str(seed): stages for seed in logs}}
