"""A sweep under Ray Tune: a trial is an overlay; it asks the broker for its seeds and reports as each ends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Set before tune is imported: it reads them once.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
# Our one logger is below; the default ones add three files a trial.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Its handler would swallow Ctrl-C; the command line answers it, for runs with and without Tune alike.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback

from service.adapters.ray_cluster import MEMORY_PER_TRIAL
from service.faults import Point, fault
from service.stages import PlannedStage

AT_ONCE = 8
"""Trials in flight; each is a small process that waits for gangs."""


def run_trials(name: str, plans: Sequence[Sequence[tuple[PlannedStage, ...]]], broker: Any, storage: Path) -> None:
    """Run trial i's seeds ``plans[i]``; failures are in the broker's answers and fail no other trial."""

    def trial(config: dict[str, Any]) -> None:
        fault(Point.TRIAL)
        waiting = [broker.seed.remote(plan) for plan in plans[config["trial"]]]
        values: list[float] = []
        while waiting:
            (done,), waiting = ray.wait(waiting)
            result = ray.get(done)
            if result.error:
                # A failed seed ends its trial: a mean over the survivors would not be a mean.
                raise RuntimeError(result.error)
            values.append(result.metric(result.plan[-1].stage, "val_bpb"))
            tune.report({"val_bpb": sum(values) / len(values), "seeds_done": len(values), "seed": result.seed})
            fault(Point.REPORTED)

    tuner = tune.Tuner(
        tune.with_resources(trial, tune.PlacementGroupFactory([{"memory": MEMORY_PER_TRIAL}])),
        param_space={"trial": tune.grid_search(list(range(len(plans))))},
        tune_config=tune.TuneConfig(metric="val_bpb", mode="min", max_concurrent_trials=AT_ONCE),
        run_config=tune.RunConfig(
            name=f"{name}-{time.time_ns()}", storage_path=str(storage), verbose=0, callbacks=[JsonLoggerCallback()]
        ),
    )
    tuner.fit()
