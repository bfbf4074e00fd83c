"""One try of a stage, or of several together, into the folder store: job, torchrun, a valid report or a reason."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.codec import TAG
from model.job import LOG
from model.report import StageReport, write_json
from service.adapters.flight import ask
from service.adapters.store_fs import FolderStore, refusals
from service.adapters.torchrun import run_gang, torchrun_command
from service.errors import FailureKind, StoreError
from service.source import source_digest
from service.stages import PlannedStage, made_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a stage ended: a report, or why there is none."""

    report: StageReport | None = None
    kind: FailureKind | None = None
    why: str = ""
    gang_s: float = 0.0
    """How long its gang was held for it and those that went with it."""


async def run_attempt(planned: PlannedStage, store: FolderStore) -> Outcome:
    """Run one stage; its result is decided by a valid report, not by an exit code."""
    return (await run_attempts([planned], store))[0]


async def run_attempts(group: Sequence[PlannedStage], store: FolderStore) -> list[Outcome]:
    """Run stages that go together in one gang; the outcome of each, in order. A disk that refuses is nobody's bug."""
    try:
        with refusals(store.stages):
            return await _run_attempts(group, store)
    except StoreError as error:
        return [Outcome(kind=FailureKind.OPERATOR, why=str(error)) for _ in group]


async def _run_attempts(group: Sequence[PlannedStage], store: FolderStore) -> list[Outcome]:
    first = group[0]
    source = source_digest(first.modules)[:16]
    if source != first.parts["source"]:
        why = f"this node's model/ is another version ({source}) than the driver's ({first.parts['source']})"
        return [Outcome(kind=FailureKind.OPERATOR, why=why) for _ in group]
    attempts = [store.begin(planned.key) for planned in group]
    alongside = {str(attempt / "out"): planned.config for planned, attempt in zip(group[1:], attempts[1:], strict=True)}
    job = await ask(store, job_json, first, store)
    write_json(attempts[0] / "job.json", job | {"alongside": alongside})
    command = torchrun_command(first.stage, first.gang.ranks, attempts[0] / "job.json", attempts[0] / "out")
    deadline_s = first.deadline_s * len(group)
    started = time.monotonic()
    ended = await run_gang(command, first.gang.threads, attempts[0] / LOG, deadline_s)
    took = {"gang_s": time.monotonic() - started, "company": len(group)}
    outcomes = []
    for planned, attempt in zip(group, attempts, strict=True):
        try:
            report = await ask(store, store.publish, planned.key, attempt, made_of(planned) | took)
            outcomes.append(Outcome(report=report))
        except (ValueError, FileNotFoundError) as error:
            if ended.timed_out:
                why = f"not finished after {deadline_s:.0f} s (log: {attempts[0] / LOG})"
                outcomes.append(Outcome(kind=FailureKind.CAP, why=why))
            else:
                outcomes.append(failure_of(attempts[0], ended.exit_code, str(error)))
    return outcomes


def job_json(planned: PlannedStage, store: FolderStore) -> dict[str, Any]:
    """The job that the ranks read, as :class:`model.job.Job` encodes; what they read is on this node then."""
    return {
        TAG: "model.job:Job",
        "config": planned.config,
        "seed": planned.seed,
        "corpus": store.corpus_here(planned.corpus, planned.corpus_digest),
        "corpus_digest": planned.corpus_digest,
        "stage": str(planned.stage),
        "inputs": {stage: str(store.brought(key)) for stage, key in planned.inputs.items()},
        "device": planned.gang.device,
        "threads": planned.gang.threads,
    }


def failure_of(attempt: Path, exit_code: int, missing: str) -> Outcome:
    """What a try without a report died of: the first rank's own words, else how torchrun ended."""
    for path in sorted((attempt / "out").glob("failure.*.json")):
        failure = json.loads(path.read_text(encoding="utf-8"))
        why = f"rank {failure['rank']}: {failure['error']} (log: {attempt / LOG})"
        return Outcome(kind=FailureKind.BUG, why=why)
    if exit_code == 0:
        return Outcome(kind=FailureKind.BUG, why=missing)
    return Outcome(kind=FailureKind.INFRASTRUCTURE, why=f"torchrun ended with {exit_code} (log: {attempt / LOG})")
