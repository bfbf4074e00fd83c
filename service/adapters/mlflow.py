"""The view for people in MLflow: experiment = sweep, parent run = config, child run = seed, tagged with its tries.

Two levels and no more, because its charts show only top-level runs. Written from the service, in batches, and found
again by tag, so that syncing twice changes nothing; the store stays the truth.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from service.faults import Point, fault
from service.shown import ConfigView, ExperimentView, RunStatus, RunView, Synced

OWN = "caddie."
"""How every tag of ours begins; one that is no longer so is taken away."""
KEY = "caddie.key"
"""Tag by which a run is found again: what it stands for, never how it turned out."""
DRAWN = "caddie.figures"
"""Tag that says what the run's figures show."""
FIGURES = "figures"
"""Folder of a run's artifacts."""
BATCH = 100
"""Parameters, and tags, that one request may carry."""


class MlflowTracker:
    """A Tracker on any MLflow store."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.uri, self.artifacts = uri, artifacts

    def ready(self) -> None:
        """Open the store, and set it up if it is new."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        with file_lock(self.artifacts / ".lock", wait=True):
            MlflowClient(self.uri).search_experiments(max_results=1)

    def sync(self, view: ExperimentView, seen: Callable[[int, int], None] = lambda done, total: None) -> Synced:
        """Create or complete the runs of ``view``; other runs of the experiment are left alone. ``seen`` hears how many
        runs of how many have been looked at.

        Raises:
            CaddieError: the store doesn't answer.
        """
        counts: Counter[str] = Counter()
        total = sum(1 + len(config.seeds) for config in view.configs)
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            # One writer of this home at a time: a new SQLite store can't be set up by two, and a run that one has
            # looked for in vain must not be created twice.
            with file_lock(self.artifacts / ".lock", wait=True):
                self.client = MlflowClient(self.uri)
                place = self._experiment(view.name)
                known = self._known(place)
                for config in view.configs:
                    self._config(place, known, config, counts)
                    seen(counts.total(), total)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise CaddieError(f"MLflow at {self.uri}: {str(error).splitlines()[0]}") from error
        return Synced(**counts)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A server has a root of its own; a bare database would put artifacts into the working folder.
        root = None if self.uri.startswith(("http://", "https://")) else (self.artifacts / name).as_uri()
        return str(self.client.create_experiment(name, artifact_location=root))

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

    def _config(self, place: str, known: Mapping[str, Run], config: ConfigView, counts: Counter[str]) -> None:
        parent = known.get(config.run.key)
        drawn = parent.data.tags.get(DRAWN, "") if parent else ""
        # The old digest stays until the new figures are there.
        run_id, what = self._run(place, parent, config.run, {DRAWN: drawn} if drawn else {})
        if config.figures and config.drawn != drawn:
            self._draw(run_id, config.figures)
            self.client.set_tag(run_id, DRAWN, config.drawn)
            what = what if what == "created" else "changed"
        counts[what] += 1
        for seed in config.seeds:
            _, what = self._run(place, known.get(seed.key), seed, {"mlflow.parentRunId": run_id})
            counts[what] += 1

    def _run(self, place: str, run: Run | None, view: RunView, more: Mapping[str, str]) -> tuple[str, str]:
        """Create a run, or write what has changed of it; its id and what was done. Parameters are written once."""
        tags = {KEY: view.key, **view.tags, **more}
        if run is None:
            created = self.client.create_run(place, start_time=view.start_ms, tags=tags, run_name=view.name)
            fault(Point.RUN_CREATED)
            self._write(created.info.run_id, view.end_ms, view.metrics, view.params, {})
            fault(Point.RUN_WRITTEN)
            if view.status is not RunStatus.RUNNING:
                self._status(created.info.run_id, view)
            return created.info.run_id, "created"
        run_id, data = run.info.run_id, run.data
        metrics = {name: value for name, value in view.metrics.items() if data.metrics.get(name) != value}
        # A metric can't be taken away: what isn't known any more, as a p against a baseline that it has become itself.
        metrics |= {n: math.nan for n, v in data.metrics.items() if n not in view.metrics and not math.isnan(v)}
        params = {name: value for name, value in view.params.items() if name not in data.params}
        new_tags = {name: value for name, value in tags.items() if data.tags.get(name) != value}
        old_tags = [name for name in data.tags if name.startswith(OWN) and name not in tags]
        changed = self._write(run_id, self._later(run, view, metrics), metrics, params, new_tags)
        if changed:
            fault(Point.RUN_CHANGED)
        for name in old_tags:
            self.client.delete_tag(run_id, name)
        if run.info.status != view.status:
            self._status(run_id, view)
        same = not (changed or old_tags) and run.info.status == view.status
        return run_id, "unchanged" if same else "changed"

    def _later(self, run: Run, view: RunView, metrics: Mapping[str, float]) -> int:
        """A time in milliseconds after that of every value that is replaced, whatever the clocks have done since: the
        newest counts."""
        before = [
            point.timestamp
            for name in metrics
            if name in run.data.metrics
            for point in self.client.get_metric_history(run.info.run_id, name)
        ]
        return max(view.end_ms, *(at + 1 for at in before)) if before else view.end_ms

    def _write(
        self,
        run_id: str,
        at_ms: int,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> bool:
        """Write in as few requests as may be; whether there was anything to write."""
        rows = [Metric(name, value, at_ms, 0) for name, value in metrics.items()]
        param_rows, tag_rows = [Param(k, v) for k, v in params.items()], [RunTag(k, v) for k, v in tags.items()]
        for part in _batches(rows, param_rows, tag_rows):
            self.client.log_batch(run_id, *part)
        return bool(rows or param_rows or tag_rows)

    def _status(self, run_id: str, view: RunView) -> None:
        if view.status is RunStatus.RUNNING:
            self.client.update_run(run_id, view.status)
        else:
            self.client.set_terminated(run_id, view.status, view.end_ms)

    def _draw(self, run_id: str, figures: Mapping[str, Callable[[], bytes]]) -> None:
        with tempfile.TemporaryDirectory(prefix="caddie-figures-") as folder:
            for name, draw in figures.items():
                (Path(folder) / name).write_bytes(draw())
            self.client.log_artifacts(run_id, folder, FIGURES)


def _batches(*rows: Sequence[Any]) -> Iterator[list[Sequence[Any]]]:
    """The rows of each kind, ``BATCH`` at a time."""
    for start in range(0, max(map(len, rows)), BATCH):
        yield [part[start : start + BATCH] for part in rows]
