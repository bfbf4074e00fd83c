"""``python -m model STAGE --job job.json --out DIR``: one rank of one stage, started by torchrun.

``python -m model run`` takes the same job through the whole chain in one gang; ``preflight`` looks at the node.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
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

PREFLIGHT = "preflight"
"""No stage: it has no result, and says only whether a node is fit."""


def main() -> None:
    """Parse, join the gang, run."""
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    parser.add_argument("stage", choices=[*Stage, "run", PREFLIGHT])
    parser.add_argument("--job", type=Path, required=True, help="job.json, as the service writes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for outputs and report.json")
    parser.add_argument("--code-bytes", type=int, default=0, help="size of the code that ships (run only)")
    args = parser.parse_args()
    rank = int(os.environ.get("RANK", "0"))
    try:
        run(args.stage, args.job, args.out, rank, args.code_bytes)
    except Exception as error:
        write_failure(args.out, rank, error)  # also of what goes wrong before the gang has met
        raise


def run(name: str, job_file: Path, out: Path, rank: int, code_bytes: int) -> None:
    """One stage, a preflight, or the whole chain."""
    job: Job = decode(json.loads(job_file.read_text(encoding="utf-8")))
    if name == Stage.SCRIPT:
        become(job.config, job.seed, job_file.parent / SCRATCH)
    pulse = Pulse(job_file.parent, rank)
    with join_gang(job.device, job.threads, pulse.beat) as gang:
        if name == "run":
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


if __name__ == "__main__":
    main()
