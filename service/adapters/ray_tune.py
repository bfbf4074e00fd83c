"""A sweep under Ray Tune: a trial is an overlay; it asks the broker for its seeds and reports as each ends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Set before tune is imported: it reads them once. The store is what a sweep goes on from, and not Tune's own snapshot,
# which costs a second of every few with a thousand trials.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "60")
# Our one logger is below; the default ones add three files a trial.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Its handler would swallow Ctrl-C; the command line answers it, for runs with and without Tune alike.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback

from service.adapters.ray_cluster import MEMORY_PER_TRIAL, places_for
from service.faults import Point, fault
from service.stages import PlannedStage

AT_ONCE = 8
"""Trials in flight at least; each is a small process that waits for gangs, and is used again for the next trial."""
BEYOND = 1.25
"""Trials in flight for each gang that the cluster holds: no gang waits for a trial to begin."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """One config over its seeds; a step is a seed."""

    def setup(self, config: dict[str, Any], broker: Any, plans: Sequence[Sequence[tuple[PlannedStage, ...]]]) -> None:
        """Ask for every seed at once."""
        self.broker, self.plans = broker, plans
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: starting a process for each would cost more than many a stage."""
        fault(Point.TRIAL)
        self.waiting = [self.broker.seed.remote(plan) for plan in self.plans[new_config["trial"]]]
        self.values: list[float] = []
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next seed; a failed one ends its trial, for a mean over the survivors is not a mean.

        Raises:
            RuntimeError: with the seed's error.
        """
        if self.values:
            fault(Point.REPORTED)
        (done,), self.waiting = ray.wait(self.waiting)
        result = ray.get(done)
        if result.error:
            raise RuntimeError(result.error)
        self.values.append(result.metric(result.plan[-1].stage, "val_bpb"))
        mean = sum(self.values) / len(self.values)
        return {"val_bpb": mean, "seeds_done": len(self.values), "seed": result.seed, "done": not self.waiting}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store has what a trial stands on."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, likewise."""


def run_trials(name: str, plans: Sequence[Sequence[tuple[PlannedStage, ...]]], broker: Any, storage: Path) -> None:
    """Run trial i's seeds ``plans[i]``; failures are in the broker's answers and fail no other trial."""
    at_once = max(AT_ONCE, round(BEYOND * places_for(plans[0][0][0].gang)))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Trial, broker=broker, plans=plans),
            tune.PlacementGroupFactory([{"memory": MEMORY_PER_TRIAL}]),
        ),
        param_space={"trial": tune.grid_search(list(range(len(plans))))},
        tune_config=tune.TuneConfig(metric="val_bpb", mode="min", max_concurrent_trials=at_once, reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"{name}-{time.time_ns()}", storage_path=str(storage), verbose=0, callbacks=[JsonLoggerCallback()]
        ),
    )
    tuner.fit()
