"""A preflight on the node this process is on, by the gang that is to run there."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from model.codec import TAG
from model.job import LOG
from model.report import read_report, write_json
from service.adapters.attempt import job_json
from service.adapters.flight import ask
from service.adapters.store_fs import JOB, FolderStore
from service.adapters.torchrun import TORCHRUN, add_torchrun_s_words, run_gang, torchrun_command
from service.adapters.watchdog import Limits, Watchdog
from service.failures import failures_of, told
from service.nodes import Speed
from service.stages import PlannedStage

DEADLINE_S = 180.0
"""For the whole preflight; importing torch on eight ranks takes most of it."""
SILENCE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitness:
    """What a preflight found."""

    node: str
    unfit: str = ""
    """Why the node is not to be used."""
    speed: Speed | None = None
    """Of a node on which nothing is wrong; whether it is slow, others of its kind say."""


async def preflight(planned: PlannedStage, node: str, store: FolderStore) -> Fitness:
    """Check this node for ``planned`` and whatever else its gang is to run; about as long as importing torch twice."""
    gang, folder = planned.gang, store.scratch("preflight")
    job = await ask(store, job_json, replace(planned, inputs={}), store)
    write_json(folder / JOB, job | {"config": {TAG: "model.preflight:PreflightConfig"}, "stage": "preflight"})
    command = torchrun_command("preflight", gang.ranks, folder / JOB, folder / "out", folder / LOG)
    watchdog = Watchdog(folder, Limits(deadline_s=DEADLINE_S, silence_s=SILENCE_S), gang.ranks)
    ended = await run_gang(command, gang.threads, folder / TORCHRUN, watchdog)
    try:
        report = read_report(folder / "out")
    except ValueError as missing:
        return Fitness(node=node, unfit=_unfit(folder, ended.stopped.why if ended.stopped else "", str(missing)))
    kind = f"{report.facts['hardware']}, {gang.ranks} x {gang.threads} {gang.device}"
    speed = Speed(node=node, kind=kind, step_ms=report.metrics["step_ms"], at_s=time.time())
    return Fitness(node=node, speed=speed)


def _unfit(folder: Path, stopped: str, missing: str) -> str:
    add_torchrun_s_words(folder)
    said = failures_of(folder)
    why = stopped or (told(said[0]) if said else f"the preflight gave no report: {missing}")
    return f"{why} (log: {folder / LOG})"
