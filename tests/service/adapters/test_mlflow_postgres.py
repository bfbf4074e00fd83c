from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.mlflow import MlflowTracker
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.notes import note_of
from service.shown import Synced
from service.spec import RunSpec
from service.view import view_of

SEEDS = (7, 8)


def binary(name: str) -> str | None:
    """A program of PostgreSQL, which Debian keeps off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)]))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL of our own on a socket in a folder, and on no port; its address as MLflow takes it."""
    pytest.importorskip("psycopg", reason="no psycopg: pip install 'caddie[server]'")
    initdb, server = binary("initdb"), binary("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL here: initdb and postgres are not on the path")
    # It refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="caddie-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    # Each as the user it wants; a C locale and no syncing to disk, which is for keeping data.
    own: dict[str, Any] = {"user": user} if os.geteuid() == 0 else {}
    options = ["-D", str(folder / "data"), "-A", "trust", "-U", "caddie", "--no-locale", "-E", "UTF8", "--no-sync"]
    try:
        subprocess.run([initdb, *options], check=True, capture_output=True, cwd=folder, **own)
        command = [server, "-D", str(folder / "data"), "-k", str(folder), "-c", "listen_addresses=", "-F"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, **own) as running:
            assert running.stderr is not None
            for line in running.stderr:
                if "ready to accept connections" in line:
                    break
            else:
                pytest.fail("PostgreSQL ended before it was ready")
            try:
                yield f"postgresql+psycopg://caddie@/postgres?host={folder}"
            finally:
                running.send_signal(signal.SIGINT)  # SIGTERM would wait until MLflow gives its connections back
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_view_in_postgresql_says_what_the_one_in_sqlite_says_and_syncing_it_twice_changes_nothing(
    postgres: str,
    tmp_path: Path,
    spec: RunSpec,
    corpus: Corpus,
    store: FolderStore,
    finish: Callable[..., Any],
    empty_mlflow: Path,
) -> None:
    overlay = {"score.slot.lr": 0.5}
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    trial = contend(spec.at(overlay), overlay, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,))
    for plan in (*base.plans.values(), trial.plans[7]):
        for planned in plan:
            if store.find(planned.key) is None:
                finish(store, planned)
    experiment = Experiment(name="rates-tiny", seeds=SEEDS, contenders=(base, trial))
    view = view_of([note_of(experiment, git_sha="abc", git_dirty=True, started_s=1e9)], store, lambda _: False)

    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    addresses = {"postgresql": postgres, "sqlite": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    for name, uri in addresses.items():
        assert MlflowTracker(uri, tmp_path / name).sync(view) == Synced(created=6)
    assert told(postgres, whole=False) == told(addresses["sqlite"], whole=False)
    before = told(postgres, whole=True)
    assert MlflowTracker(postgres, tmp_path / "postgresql").sync(view) == Synced(unchanged=6)
    assert told(postgres, whole=True) == before


def told(uri: str, *, whole: bool) -> dict[str, Any]:
    """What each run says, by key; with ``whole``, also its id, its times and the history of its metrics."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("rates-tiny")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    keys = {run.info.run_id: run.data.tags["caddie.key"] for run in runs}
    rows: dict[str, Any] = {}
    for run in runs:
        data = run.data
        tags = {tag: keys.get(value, value) for tag, value in data.tags.items()}
        rows[data.tags["caddie.key"]] = [data.params, data.metrics, tags, run.info.status, run.info.run_name]
        if whole:
            history = {name: client.get_metric_history(run.info.run_id, name) for name in data.metrics}
            points = {name: [(p.value, p.timestamp, p.step) for p in one] for name, one in history.items()}
            rows[data.tags["caddie.key"]] += [run.info.run_id, run.info.start_time, run.info.end_time, points]
    return rows
