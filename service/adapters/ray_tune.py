"""A sweep under Ray Tune: a trial is an overlay, and a step of it is a seed.

The broker is given all trials at once and keeps the cluster busy by itself; a trial waits for its seeds' answers and
reports each. So few processes do for a thousand trials, no gang waits for one to start, and what Tune costs is paid
while stages run.
"""

from __future__ import annotations

import os
import time
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

from service.adapters.ray_cluster import MEMORY_PER_TRIAL
from service.faults import Point, fault

AT_ONCE = 4
"""Trials that wait side by side, each a process of some 150 MB that becomes the next trial when it is over."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """One config over its seeds."""

    def setup(self, config: dict[str, Any], broker: Any, ticket: int) -> None:
        """``ticket`` is what the broker gave for the trials."""
        self.broker, self.ticket = broker, ticket
        self.values: list[float] = []
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: starting a process for each would cost more than many a stage."""
        self._reported()
        fault(Point.TRIAL)
        self.trial, self.values = int(new_config["trial"]), []
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next seed; a failed one ends its trial, for a mean over the survivors is not a mean.

        Raises:
            RuntimeError: with the seed's error.
        """
        self._reported()
        answer = ray.get(self.broker.answer.remote(self.ticket, self.trial, len(self.values)))
        if answer.error:
            raise RuntimeError(answer.error)
        self.values.append(answer.val_bpb)
        mean = sum(self.values) / len(self.values)
        return {"val_bpb": mean, "seeds_done": len(self.values), "seed": answer.seed, "done": answer.last}

    def cleanup(self) -> None:
        """The last trial of this process is over."""
        self._reported()

    def _reported(self) -> None:
        """What the last step returned has reached Tune."""
        if self.values:
            fault(Point.REPORTED)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store has what a trial stands on."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, likewise."""


def run_trials(name: str, trials: int, broker: Any, ticket: Any, storage: Path) -> None:
    """Run the trials that ``broker`` took against ``ticket``; failures are in its answers and fail no other trial."""
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Trial, broker=broker, ticket=ticket),
            tune.PlacementGroupFactory([{"memory": MEMORY_PER_TRIAL}]),
        ),
        param_space={"trial": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(metric="val_bpb", mode="min", max_concurrent_trials=AT_ONCE, reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"{name}-{time.time_ns()}", storage_path=str(storage), verbose=0, callbacks=[JsonLoggerCallback()]
        ),
    )
    tuner.fit()
