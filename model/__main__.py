"""``python -m model STAGE --job job.json --out DIR``: one rank of one stage, started by torchrun.

``python -m model run`` takes the same job through the whole chain in one gang.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import cast

from model.codec import decode
from model.gang import join_gang
from model.job import Job
from model.run import StageFunction, run_chain, run_stage
from model.stages import STAGES, Stage


def main() -> None:
    """Parse, join the gang, run."""
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    parser.add_argument("stage", choices=[*Stage, "run"])
    parser.add_argument("--job", type=Path, required=True, help="job.json, as the service writes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for outputs and report.json")
    parser.add_argument("--code-bytes", type=int, default=0, help="size of the code that ships (run only)")
    args = parser.parse_args()
    job: Job = decode(json.loads(args.job.read_text(encoding="utf-8")))
    with join_gang(job.device, job.threads) as gang:
        if args.stage == "run":
            run_chain(job, args.out, gang, args.code_bytes)
            return
        module, _, name = STAGES[Stage(args.stage)].entry.partition(":")
        function = cast(StageFunction, getattr(importlib.import_module(module), name))
        run_stage(function, job, args.out, gang)


if __name__ == "__main__":
    main()
