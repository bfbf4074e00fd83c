"""One try of a stage, or of several together, into the folder store: job, torchrun, a valid report or a reason."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.codec import TAG
from model.job import LOG
from model.report import StageReport, write_json
from model.stages import Stage
from service.adapters.flight import ask
from service.adapters.script import report_script, script_cause, unpack
from service.adapters.store_fs import JOB, FolderStore, refusals
from service.adapters.torchrun import TORCHRUN, Ended, add_torchrun_s_words, run_gang, torchrun_command
from service.adapters.watchdog import Limits, Stop, Watchdog
from service.errors import FailureKind, StoreError
from service.failures import Cause, cause_of, failures_of
from service.faults import Point, fault
from service.source import source_digest
from service.stages import PlannedStage, made_of

CLOCKED = (Stage.TRAIN, Stage.SLIDING, Stage.TTT, Stage.SLOT)
"""Stages whose own clock has a cap: training and evaluation. Adapting and packing lie between them."""

SPACE_BYTES = 2 * 2**20
"""A disk without so much counts as full: a rank's last words and its log need it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a stage ended: a report, or why there is none."""

    report: StageReport | None = None
    kind: FailureKind | None = None
    why: str = ""
    gang_s: float = 0.0
    """How long its gang was held for it and those that went with it."""
    strikes: int = 0
    """Against the node, as :class:`service.failures.Cause` has them."""


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
    fault(Point.BEGUN)
    alongside = {str(attempt / "out"): planned.config for planned, attempt in zip(group[1:], attempts[1:], strict=True)}
    job = await ask(store, job_json, first, store)
    write_json(attempts[0] / JOB, job | {"alongside": alongside})
    fault(Point.TOLD)
    if first.stage is Stage.SCRIPT:
        unpack(first, attempts[0])
    command = torchrun_command(first.stage, first.gang.ranks, attempts[0] / JOB, attempts[0] / "out", attempts[0] / LOG)
    started = time.monotonic()
    watchdog = Watchdog(attempts[0], limits_of(group), first.gang.ranks)
    ended = await run_gang(command, first.gang.threads, attempts[0] / TORCHRUN, watchdog)
    fault(Point.ENDED)
    took = {"gang_s": time.monotonic() - started, "company": len(group)}
    outcomes = []
    for planned, attempt in zip(group, attempts, strict=True):
        try:
            if planned.stage is Stage.SCRIPT and ended.stopped is None:
                report_script(planned, attempt, ended.exit_code, took["gang_s"])
            report = await ask(store, store.publish, planned.key, attempt, made_of(planned) | took)
            outcomes.append(Outcome(report=report))
        except (ValueError, FileNotFoundError) as error:
            look_for_space(attempts[0])
            if all(one.report for one in outcomes):  # the first that failed
                add_torchrun_s_words(attempts[0])
            cause = why_failed(attempts[0], ended, first.gang.ranks, str(error))
            if first.stage is Stage.SCRIPT and ended.stopped is None:
                cause = script_cause(attempts[0], ended.exit_code, str(error)) or cause
            why = f"{cause.why} (log: {attempts[0] / LOG})"
            outcomes.append(Outcome(kind=cause.kind, why=why, strikes=cause.strikes))
    return outcomes


def limits_of(group: Sequence[PlannedStage]) -> Limits:
    """When the gang of stages that go together is ended: each brings its own time."""
    first = group[0]
    has_clock = first.stage in CLOCKED
    return Limits(
        deadline_s=first.deadline_s * len(group),
        own_s=first.cap_s * len(group) if has_clock and first.cap_s else None,
        silence_s=first.silence_s if has_clock or first.stage is Stage.PREQUANT else None,
    )


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


def look_for_space(attempt: Path) -> None:
    """Ranks that can't write can't say why either: whether a small file fits where they write.

    Raises:
        OSError: it doesn't.
    """
    probe = attempt / ".space"
    try:
        probe.write_bytes(bytes(SPACE_BYTES))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def why_failed(attempt: Path, ended: Ended, ranks: int, missing: str) -> Cause:
    """Why a try has no report: what the watchdog said, else the ranks, else that there is none."""
    if ended.stopped is not None:
        hung = ended.stopped.stop is Stop.SILENCE
        kind = FailureKind.INFRASTRUCTURE if hung else FailureKind.CAP
        return Cause(kind=kind, why=ended.stopped.why, strikes=int(hung))
    failures = failures_of(attempt)
    if ended.exit_code == 0 and not failures:
        return Cause(kind=FailureKind.BUG, why=missing)
    return cause_of(failures, ended.exit_code, ranks)
