"""One rank's work: the stage that its job asks for, a preflight of the node, or the whole chain."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from model.codec import decode
from model.gang import join_gang
from model.job import Job
from model.preflight import preflight_stage
from model.pulse import Pulse
from model.report import write_failure
from model.run import GroupFunction, StageFunction, run_chain, run_stage, run_together
from model.script import SCRATCH, become
from model.stages import STAGES, Stage

CHAIN = "run"
PREFLIGHT = "preflight"
"""No stage: it has no result, and says only whether a node is fit."""
WORK = (*Stage, CHAIN, PREFLIGHT)


def work(name: str, job_file: Path, out: Path, rank: int, code_bytes: int) -> None:
    """Do what ``name``, one of :data:`WORK`, says, with everybody else in the gang; what goes wrong is written down,
    also before the gang has met."""
    try:
        _work(name, job_file, out, rank, code_bytes)
    except Exception as error:
        write_failure(out, rank, error)
        raise


def _work(name: str, job_file: Path, out: Path, rank: int, code_bytes: int) -> None:
    job: Job = decode(json.loads(job_file.read_text(encoding="utf-8")))
    if name == Stage.SCRIPT:
        become(job.config, job.seed, job_file.parent / SCRATCH)
    pulse = Pulse(job_file.parent, rank)
    with join_gang(job.device, job.threads, pulse.beat) as gang:
        if name == CHAIN:
            run_chain(job, out, gang, code_bytes)
            return
        if name == PREFLIGHT:
            run_stage(preflight_stage, job, out, gang)
            return
        stage = STAGES[Stage(name)]
        if not job.alongside:
            run_stage(cast(StageFunction, load(stage.entry)), job, out, gang)
            return
        jobs = [job, *(replace(job, config=config) for config in job.alongside.values())]
        outs = [out, *(Path(folder) for folder in job.alongside)]
        run_together(cast(GroupFunction, load(stage.together)), jobs, outs, gang)


def load(entry: str) -> Callable[..., Any]:
    """The function that ``module:name`` names."""
    module, _, name = entry.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
