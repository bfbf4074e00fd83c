"""The view for people in MLflow: experiment = sweep, parent run = config, child run = seed, tagged with its tries.

Two levels and no more, because its charts show only top-level runs. Written from the service, in batches, and found
again by tag, so that syncing twice changes nothing; the store stays the truth.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from service.adapters.locks import file_lock
from service.errors import CaddieError
from service.overview import flat_params
from service.results import GroupResult, SeedResult, SeedStatus

KEY = "caddie.key"
"""Tag by which a run is found again: what it stands for, never how it turned out."""
STATUS = {SeedStatus.DONE: "FINISHED", SeedStatus.FAILED: "FAILED", SeedStatus.RUNNING: "RUNNING"}


class MlflowTracker:
    """A Tracker on any MLflow store."""

    def __init__(self, uri: str, artifacts: Path, tags: Mapping[str, str]) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.uri, self.artifacts, self.tags = uri, artifacts, dict(tags)

    def sync(self, experiment: str, groups: Sequence[GroupResult]) -> None:
        """Create or complete the runs of ``groups``.

        Raises:
            CaddieError: the store doesn't answer.
        """
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            # One writer of this home at a time: a new SQLite store can't be set up by two, and a run that one has
            # looked for in vain must not be created twice.
            with file_lock(self.artifacts / ".lock", wait=True):
                self.client = MlflowClient(self.uri)
                place = self._experiment(experiment)
                known = self._known(place)
                for group in groups:
                    self._group(place, known, group)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise CaddieError(f"MLflow at {self.uri}: {str(error).splitlines()[0]}") from error

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment(name, artifact_location=(self.artifacts / name).as_uri()))

    def _known(self, place: str) -> dict[str, Run]:
        """Every run of ours in the experiment, by key."""
        known: dict[str, Run] = {}
        token = None
        while True:
            page = self.client.search_runs([place], max_results=1000, page_token=token)
            known |= {run.data.tags[KEY]: run for run in page if KEY in run.data.tags}
            token = page.token
            if not token:
                return known

    def _group(self, place: str, known: dict[str, Run], group: GroupResult) -> None:
        key = f"{group.spec.digest()}/{group.headline}"
        metrics: dict[str, float] = {"n": len(group.done), "failed": len(group.failed)}
        if group.done:
            metrics["val_bpb_mean"] = group.bpb.mean
            if group.bpb.sd is not None:
                metrics["val_bpb_sd"] = group.bpb.sd
        whole = len(group.done) == len(group.seeds)
        status = "FINISHED" if whole else "FAILED" if group.failed else "RUNNING"
        tags = {"caddie.level": "config", "caddie.score": str(group.headline), "caddie.recipe": group.spec.name}
        params = flat_params(group.spec)
        parent = self._run(place, known, key, group.title, params, metrics, tags, status)
        for seed, result in group.seeds.items():
            child = {"mlflow.parentRunId": parent, "caddie.level": "seed", "caddie.seed": str(seed)}
            child |= attempt_tags(result)
            known_child = known.get(f"{key}/{result.key(group.headline)}")
            if result.error or (known_child and "caddie.error" in known_child.data.tags):
                child["caddie.error"] = result.error[:5000]
            self._run(
                place,
                known,
                f"{key}/{result.key(group.headline)}",
                f"{group.title} s{seed}",
                params | {"seed": str(seed)},
                seed_metrics(result, group),
                child,
                STATUS[result.status],
            )

    def _run(
        self,
        place: str,
        known: dict[str, Run],
        key: str,
        name: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        status: str,
    ) -> str:
        """Create the run of ``key``, or write what has changed; parameters are written once.

        A config that stands in a group twice, as base and as trial, is one run.
        """
        run = known.get(key)
        now = int(time.time() * 1000)
        if run is None:
            run = self.client.create_run(place, run_name=name, tags={KEY: key, **self.tags, **tags})
        new_params = {k: v for k, v in params.items() if k not in run.data.params}
        changed = {k: v for k, v in metrics.items() if run.data.metrics.get(k) != v}
        new_tags = {k: v for k, v in tags.items() if run.data.tags.get(k) != v}
        if changed or new_tags or new_params:
            self.client.log_batch(
                run.info.run_id,
                metrics=[Metric(k, v, now, 0) for k, v in changed.items()],
                params=[Param(k, v) for k, v in new_params.items()],
                tags=[RunTag(k, v) for k, v in new_tags.items()],
            )
        if run.info.status != status:
            self.client.set_terminated(run.info.run_id, status) if status != "RUNNING" else self.client.update_run(
                run.info.run_id, status
            )
        known[key] = self.client.get_run(run.info.run_id)
        return str(run.info.run_id)


def attempt_tags(result: SeedResult) -> dict[str, str]:
    """The tries of a seed's stages as the store numbers them: the largest, and each; 0 for none."""
    each = ", ".join(f"{stage} {number}" for stage, number in result.attempts.items())
    return {"caddie.attempt": str(max(result.attempts.values(), default=0)), "caddie.attempts": each}


def seed_metrics(result: SeedResult, group: GroupResult) -> dict[str, float]:
    """A seed's numbers: the headline by its plain name, and every stage's with the stage before it."""
    metrics: dict[str, Any] = {}
    for stage, report in result.reports.items():
        metrics |= {f"{stage}/{name}": value for name, value in report.metrics.items()}
        metrics[f"time/{stage}_s"] = report.elapsed_s
        if stage is group.headline:
            metrics["val_bpb"] = report.metrics["val_bpb"]
        if "model_bytes" in report.metrics:
            metrics["size/model_bytes"] = report.metrics["model_bytes"]
    return metrics
