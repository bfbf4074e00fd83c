from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.mlflow import MlflowTracker
from service.adapters.store_fs import FolderStore
from service.errors import CaddieError
from service.experiment import contend, lookup
from service.overview import flat_params
from service.results import GroupResult
from service.spec import RunSpec

SEEDS = (42, 1337, 2024)
PARENT = "mlflow.parentRunId"
MakeGroup = Callable[..., GroupResult]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def tracker(place: Path) -> MlflowTracker:
    """One SQLite store for all tests here, each with an experiment of its own: making it takes seconds."""
    return MlflowTracker(f"sqlite:///{place / 'mlflow.db'}", place / "artifacts", {"caddie.git_sha": "abc123"})


@pytest.fixture(scope="module")
def client(place: Path, tracker: MlflowTracker) -> MlflowClient:
    return MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def group(spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]) -> MakeGroup:
    """``group({"score.slot.lr": 0.5}, Stage.SLOT, {42: 2.25})``: a config whose seeds with a number have finished."""

    def make(overlay: Mapping[str, Any], headline: Stage, values: Mapping[int, float]) -> GroupResult:
        contender = contend(spec.at(overlay), overlay, SEEDS, corpus, headline, (headline,))
        for seed, value in values.items():
            train, pack, score = contender.plans[seed]
            metrics = {
                train.key: {"train_s": 30.5, "parameters": 1000},
                pack.key: {"model_bytes": 250_000 + seed, "weight_rmse": 0.01},
                score.key: {"val_bpb": value, "eval_s": 4.0},
            }
            for planned in contender.plans[seed]:
                if store.find(planned.key) is None:
                    finish(store, planned, metrics[planned.key])
        return lookup(contender, store)

    return make


def runs_of(client: MlflowClient, experiment: str) -> tuple[dict[str, Run], dict[tuple[str, str], Run]]:
    """Parents by title, and children by their parent's title and seed."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = list(client.search_runs([found.experiment_id], max_results=1000))
    parents = {run.info.run_id: run for run in runs if PARENT not in run.data.tags}
    children = [run for run in runs if PARENT in run.data.tags]
    assert all(child.data.tags[PARENT] in parents for child in children), "two levels and no more"
    by_seed = {(parents[c.data.tags[PARENT]].info.run_name, c.data.params["seed"]): c for c in children}
    assert len(by_seed) == len(children)
    return {run.info.run_name: run for run in parents.values()}, by_seed


BASE = {42: 2.25, 1337: 2.5, 2024: 2.375}
TRIAL = {42: 2.0, 1337: 2.25, 2024: 2.0}


def test_a_config_is_a_run_and_its_seeds_are_runs_below_it(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    tracker.sync(name, groups)
    parents, children = runs_of(client, name)
    assert parents.keys() == {"base", "lr=0.5"}
    assert children.keys() == {(title, str(seed)) for title in parents for seed in SEEDS}
    for (title, seed), child in children.items():
        assert child.info.run_name == f"{title} s{seed}"
        assert child.data.tags["caddie.git_sha"] == parents[title].data.tags["caddie.git_sha"] == "abc123"


def test_a_config_s_numbers_are_those_of_its_sample(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    tracker.sync(name, [group({}, Stage.SLIDING, BASE)])
    parents, _ = runs_of(client, name)
    metrics = parents["base"].data.metrics
    values = np.array(list(BASE.values()))
    assert metrics["n"] == 3
    assert metrics["failed"] == 0
    assert metrics["val_bpb_mean"] == pytest.approx(values.mean())
    assert metrics["val_bpb_sd"] == pytest.approx(values.std(ddof=1))
    assert parents["base"].info.status == "FINISHED"


def test_one_finished_seed_has_a_mean_and_no_spread(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    tracker.sync(name, [group({}, Stage.SLIDING, {42: 2.25})])
    metrics = runs_of(client, name)[0]["base"].data.metrics
    assert (metrics["n"], metrics["val_bpb_mean"]) == (1, 2.25)
    assert "val_bpb_sd" not in metrics


def test_a_seed_s_run_has_its_score_its_bytes_and_its_wall_clocks(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    result = group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)
    tracker.sync(name, [result])
    _, children = runs_of(client, name)
    for seed, value in TRIAL.items():
        metrics = children["lr=0.5", str(seed)].data.metrics
        assert metrics["val_bpb"] == metrics["score.slot/val_bpb"] == value
        assert metrics["size/model_bytes"] == metrics["pack/model_bytes"] == 250_000 + seed
        assert metrics["train/train_s"] == 30.5
        assert metrics["score.slot/eval_s"] == 4.0
        for stage, report in result.seeds[seed].reports.items():
            assert metrics[f"time/{stage}_s"] == pytest.approx(report.elapsed_s)


def test_every_setting_is_a_parameter_of_the_config_and_of_each_seed(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    result = group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)
    tracker.sync(name, [result])
    parents, children = runs_of(client, name)
    settings = {path: value for path, value in flat_params(result.spec).items() if value}
    assert settings["score.slot.lr"] == "0.5"

    def written(run: Run) -> dict[str, str]:
        return {path: value for path, value in run.data.params.items() if value}

    assert written(parents["lr=0.5"]) == settings
    for seed in SEEDS:
        assert written(children["lr=0.5", str(seed)]) == settings | {"seed": str(seed)}


def tries_of(client: MlflowClient, experiment: str) -> dict[str, tuple[str, str]]:
    """What each seed's run says of its tries."""
    _, children = runs_of(client, experiment)
    tags = {seed: child.data.tags for (_, seed), child in children.items()}
    return {seed: (one["caddie.attempt"], one["caddie.attempts"]) for seed, one in tags.items()}


def test_a_seed_s_run_says_how_often_each_stage_was_tried(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    plans = {seed: result.plan for seed, result in group({}, Stage.SLIDING, {}).seeds.items()}
    for seed, place, failures in ((42, 1, 1), (1337, 0, 9), (1337, 2, 1)):
        for _ in range(failures):
            store.begin(plans[seed][place].key)
    tracker.sync(name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})])
    assert tries_of(client, name) == {
        "42": ("2", "train 1, pack 2, score.sliding 1"),
        "1337": ("10", "train 10, pack 1, score.sliding 2"),
        "2024": ("0", "train 0, pack 0, score.sliding 0"),
    }
    parents, _ = runs_of(client, name)
    assert not [tag for tag in parents["base"].data.tags if tag.startswith("caddie.attempt")]


def test_a_seed_that_is_tried_again_is_the_same_run_with_a_higher_number(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    waiting = group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})
    store.begin(waiting.seeds[2024].plan[0].key)
    tracker.sync(name, [failed(group({}, Stage.SLIDING, {}), 2024, "the node is gone")])
    before = everything(client, name).keys()
    assert tries_of(client, name)["2024"] == ("1", "train 1, pack 0, score.sliding 0")
    tracker.sync(name, [group({}, Stage.SLIDING, BASE)])
    assert everything(client, name).keys() == before
    assert tries_of(client, name)["2024"] == ("2", "train 2, pack 1, score.sliding 1")


def everything(client: MlflowClient, experiment: str) -> dict[str, Any]:
    """All that a run of the experiment holds, with the whole history of its metrics."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {
        run.info.run_id: (
            dict(run.data.params),
            dict(run.data.tags),
            {
                m: [(p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, m)]
                for m in run.data.metrics
            },
            (run.info.status, run.info.start_time, run.info.end_time, run.info.run_name),
        )
        for run in client.search_runs([found.experiment_id], max_results=1000)
    }


def failed(result: GroupResult, seed: int, error: str) -> GroupResult:
    return replace(result, seeds={**result.seeds, seed: replace(result.seeds[seed], error=error)})


def test_syncing_twice_changes_nothing(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, place: Path
) -> None:
    groups = [
        group({}, Stage.SLIDING, BASE),
        group({"score.slot.lr": 0.5}, Stage.SLOT, {42: 2.0}),
        failed(group({"score.slot.lr": 0.25}, Stage.SLOT, {42: 2.0}), 1337, "NaN at step 3"),
    ]
    tracker.sync(name, groups)
    before = everything(client, name)
    tracker.sync(name, groups)
    MlflowTracker(f"sqlite:///{place / 'mlflow.db'}", place / "artifacts", {"caddie.git_sha": "later"}).sync(
        name, groups
    )
    assert everything(client, name) == before
    assert len(before) == 3 * (1 + len(SEEDS))


def test_a_status_is_true_and_a_failed_seed_says_why(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    tracker.sync(name, [failed(group({}, Stage.SLIDING, {42: 2.25}), 1337, "NaN at step 3")])
    parents, children = runs_of(client, name)
    statuses = {seed: child.info.status for (_, seed), child in children.items()}
    assert statuses == {"42": "FINISHED", "1337": "FAILED", "2024": "RUNNING"}
    assert children["base", "1337"].data.tags["caddie.error"] == "NaN at step 3"
    assert "caddie.error" not in children["base", "42"].data.tags
    assert "val_bpb" not in children["base", "1337"].data.metrics
    assert parents["base"].info.status == "FAILED"
    assert (parents["base"].data.metrics["n"], parents["base"].data.metrics["failed"]) == (1, 1)


def test_a_config_whose_seeds_still_run_is_running(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    tracker.sync(name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})])
    assert runs_of(client, name)[0]["base"].info.status == "RUNNING"


def test_a_seed_that_finishes_later_completes_the_runs_that_are_there(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    tracker.sync(name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})])
    before = everything(client, name)
    tracker.sync(name, [group({}, Stage.SLIDING, BASE)])
    assert everything(client, name).keys() == before.keys()
    parents, children = runs_of(client, name)
    metrics = parents["base"].data.metrics
    assert (metrics["n"], metrics["val_bpb_mean"]) == (3, pytest.approx(np.mean(list(BASE.values()))))
    assert metrics["val_bpb_sd"] == pytest.approx(np.std(list(BASE.values()), ddof=1))
    assert children["base", "2024"].data.metrics["val_bpb"] == 2.375
    assert {run.info.status for run in (*parents.values(), *children.values())} == {"FINISHED"}


def test_a_seed_that_failed_and_then_finished_is_no_failure_any_more(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    tracker.sync(name, [failed(group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5}), 2024, "the node is gone")])
    assert runs_of(client, name)[0]["base"].info.status == "FAILED"
    tracker.sync(name, [group({}, Stage.SLIDING, BASE)])
    parents, children = runs_of(client, name)
    assert {run.info.status for run in (*parents.values(), *children.values())} == {"FINISHED"}
    assert parents["base"].data.metrics["failed"] == 0
    assert not children["base", "2024"].data.tags.get("caddie.error")


def test_a_sync_that_broke_off_is_completed_by_the_next(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    tracker.sync(f"{name}-whole", groups)
    write = MlflowClient.log_batch
    for broken in (1, 5):
        calls = itertools.count(1)

        def breaks_off(self: MlflowClient, *args: Any, calls: Any = calls, broken: int = broken, **kwargs: Any) -> None:
            if next(calls) == broken:
                raise MlflowException("the server went away")
            write(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_batch", breaks_off)
            with pytest.raises(CaddieError, match="the server went away"):
                tracker.sync(f"{name}-{broken}", groups)
        tracker.sync(f"{name}-{broken}", groups)
        assert contents_of(client, f"{name}-{broken}") == contents_of(client, f"{name}-whole")


def test_two_drivers_that_sync_at_once_make_each_run_once(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, place: Path
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    others = [MlflowTracker(tracker.uri, tracker.artifacts, tracker.tags) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda other: other.sync(name, groups), others))
    tracker.sync(f"{name}-whole", groups)
    assert contents_of(client, name) == contents_of(client, f"{name}-whole")


def contents_of(client: MlflowClient, experiment: str) -> list[Any]:
    """What the runs of an experiment say: the configs by title, the seeds by title and seed."""
    parents, children = runs_of(client, experiment)
    runs: list[tuple[Any, Run]] = [*parents.items(), *children.items()]
    return sorted((str(key), run.data.params, run.data.metrics, run.info.status) for key, run in runs)


def test_the_same_config_in_two_sweeps_is_in_both(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    result = group({}, Stage.SLIDING, BASE)
    for experiment in (f"{name}-1", f"{name}-2"):
        tracker.sync(experiment, [result])
        assert len(runs_of(client, experiment)[1]) == 3


def test_a_trial_that_equals_the_base_is_the_same_run_and_is_completed_like_any_other(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    same = {"score.slot.lr": 0.008}  # what the recipe has anyway
    for values in ({42: 2.25}, BASE):
        tracker.sync(name, [group({}, Stage.SLOT, values), group(same, Stage.SLOT, values)])
    runs = everything(client, name)
    assert len(runs) == 1 + len(SEEDS)
    assert {status for *_, (status, *_) in runs.values()} == {"FINISHED"}


def test_artifacts_go_where_we_say_and_not_to_the_working_folder(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, place: Path
) -> None:
    tracker.sync(name, [group({}, Stage.SLIDING, BASE)])
    found = client.get_experiment_by_name(name)
    assert found is not None
    assert found.artifact_location.startswith((place / "artifacts").as_uri())


def test_a_server_that_does_not_answer_is_our_error_within_seconds(tmp_path: Path, group: MakeGroup) -> None:
    started = time.monotonic()
    with pytest.raises(CaddieError, match=re.escape("127.0.0.1")):
        MlflowTracker("http://127.0.0.1:9", tmp_path, {}).sync("x", [group({}, Stage.SLIDING, BASE)])
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("uri", ["sqlite:///{}/file/below.db", "sqlite:///{}/file", "nonsense://{}"])
def test_a_store_that_cannot_be_opened_is_our_error(tmp_path: Path, uri: str) -> None:
    (tmp_path / "file").write_text("not a database")
    with pytest.raises(CaddieError, match="MLflow"):
        MlflowTracker(uri.format(tmp_path), tmp_path, {}).sync("x", [])
