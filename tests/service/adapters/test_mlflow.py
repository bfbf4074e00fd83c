from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.mlflow import MlflowTracker
from service.adapters.store_fs import FolderStore
from service.errors import CaddieError
from service.experiment import Contender, Experiment, contend, lookup
from service.notes import ExperimentNote, ended, note_of
from service.overview import flat_params
from service.results import GroupResult
from service.shown import ExperimentView, Synced
from service.spec import RunSpec
from service.view import view_of

SEEDS = (42, 1337, 2024)
PARENT = "mlflow.parentRunId"
MakeGroup = Callable[..., GroupResult]
Sync = Callable[..., Synced]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def tracker(place: Path) -> MlflowTracker:
    """One SQLite store for all tests here, each with an experiment of its own: making it takes seconds."""
    return MlflowTracker(f"sqlite:///{place / 'mlflow.db'}", place / "artifacts")


@pytest.fixture(scope="module")
def client(place: Path, tracker: MlflowTracker, empty_mlflow: Path) -> MlflowClient:
    shutil.copy(empty_mlflow, place / "mlflow.db")
    return MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


def note(name: str, groups: Sequence[GroupResult], begun_s: float = 1.8e9, sha: str = "abc123") -> ExperimentNote:
    """What is noted of an experiment with these groups when it has ended."""
    contenders = tuple(
        Contender(spec=g.spec, overlay=g.overlay, headline=g.headline, plans={s: r.plan for s, r in g.seeds.items()})
        for g in groups
    )
    experiment = Experiment(name=name, seeds=SEEDS, contenders=contenders)
    return ended(note_of(experiment, git_sha=sha, git_dirty=False, started_s=begun_s), groups)


def undrawn(notes: Sequence[ExperimentNote], store: FolderStore, alive: bool = False) -> ExperimentView:
    """The view of experiments without its figures, which take a second to draw."""
    view = view_of(notes, store, lambda _: alive)
    return replace(view, configs=tuple(replace(config, figures={}) for config in view.configs))


@pytest.fixture
def sync(store: FolderStore) -> Sync:
    """``sync(tracker, name, groups, alive=True)``: show an experiment, whose driver still runs or not."""

    def make(tracker: MlflowTracker, name: str, groups: Sequence[GroupResult], alive: bool = True) -> Synced:
        return tracker.sync(undrawn([note(name, groups)], store, alive))

    return make


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def group(spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]) -> MakeGroup:
    """``group({"score.slot.lr": 0.5}, Stage.SLOT, {42: 2.25})``: a config whose seeds with a number have finished."""

    def make(
        overlay: Mapping[str, Any],
        headline: Stage,
        values: Mapping[int, float],
        seeds: Sequence[int] = SEEDS,
        **more: float,
    ) -> GroupResult:
        contender = contend(spec.at(overlay), overlay, seeds, corpus, headline, (headline,))
        for seed, value in values.items():
            train, pack, score = contender.plans[seed]
            metrics = {
                train.key: {"train_s": 30.5, "parameters": 1000},
                pack.key: {"model_bytes": 250_000 + seed, "weight_rmse": 0.01},
                score.key: {"val_bpb": value, "eval_s": 4.0, **more},
            }
            for planned in contender.plans[seed]:
                if store.find(planned.key) is None:
                    finish(store, planned, metrics[planned.key])
                    if planned is train:
                        (store.folder(train.key) / "curve.json").write_text("[6.5, 5.0, 4.5]")
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
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    sync(tracker, name, groups)
    parents, children = runs_of(client, name)
    assert parents.keys() == {"base", "lr=0.5"}
    assert children.keys() == {(title, str(seed)) for title in parents for seed in SEEDS}
    for (title, seed), child in children.items():
        assert child.info.run_name == f"s{seed} {title}"
        assert child.data.tags["caddie.git_sha"] == parents[title].data.tags["caddie.git_sha"] == "abc123"


def test_a_config_is_compared_with_the_base_in_pairs_and_to_one_side(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    trials = {0.5: TRIAL, 0.25: {42: 2.5, 1337: 2.0}}
    groups = [group({"score.slot.lr": lr}, Stage.SLOT, values) for lr, values in trials.items()]
    sync(tracker, name, [group({}, Stage.SLIDING, BASE), *groups])
    parents, _ = runs_of(client, name)
    for lr, values in trials.items():
        metrics = parents[f"lr={lr}"].data.metrics
        ours, base = list(values.values()), [BASE[seed] for seed in values]
        test = scipy.stats.ttest_rel(ours, base, alternative="less")
        assert metrics["vs_base_p"] == pytest.approx(test.pvalue)
        assert metrics["vs_base_mean"] == pytest.approx(np.mean(np.subtract(ours, base)))
        low, high = scipy.stats.ttest_rel(ours, base).confidence_interval(0.95)
        assert metrics["vs_base_ci95"] == pytest.approx((high - low) / 2)
        assert parents[f"lr={lr}"].data.tags["caddie.baseline"] == "base"
    assert not [metric for metric in parents["base"].data.metrics if metric.startswith("vs_base")]


def test_another_baseline_is_another_p_and_the_baseline_has_none(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    for baseline in ("", "lr=0.5"):
        tracker.sync(undrawn([replace(note(name, groups), baseline=baseline)], store))
    parents, _ = runs_of(client, name)
    test = scipy.stats.ttest_rel(list(BASE.values()), list(TRIAL.values()), alternative="less")
    assert parents["base"].data.metrics["vs_base_p"] == pytest.approx(test.pvalue)
    assert parents["base"].data.tags["caddie.baseline"] == "lr=0.5"
    assert np.isnan(parents["lr=0.5"].data.metrics["vs_base_p"])
    before = everything(client, name)
    again = tracker.sync(undrawn([replace(note(name, groups), baseline="lr=0.5")], store))
    assert again == Synced(unchanged=8)
    assert repr(everything(client, name)) == repr(before)


def test_a_run_says_which_stages_source_data_and_machine_it_is_of(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, corpus: Corpus
) -> None:
    result = group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)
    sync(tracker, name, [result])
    parents, children = runs_of(client, name)
    tokenizer = hashlib.sha256(corpus.tokenizer.read_bytes()).hexdigest()[:16]
    expected = {"git_sha": "abc123", "git_dirty": "false", "corpus": corpus.digest, "tokenizer": tokenizer}
    expected |= {"recipe": "tiny", "score": "score.slot"}
    for run in (*parents.values(), *children.values()):
        assert {tag: run.data.tags[f"caddie.{tag}"] for tag in expected} == expected
    assert parents["lr=0.5"].data.tags["caddie.seeds"] == "42, 1337, 2024"
    for seed in SEEDS:
        keys = ", ".join(planned.key for planned in result.seeds[seed].plan)
        assert children["lr=0.5", str(seed)].data.tags["caddie.keys"] == keys


def test_what_a_score_learned_from_decides_its_legality_and_silence_claims_nothing(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    groups = [
        group({}, Stage.SLIDING, BASE),
        group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL, exposed=0, tokens=4096),
        group({"score.slot.lr": 0.25}, Stage.SLOT, TRIAL, exposed=512, tokens=4096),
    ]
    sync(tracker, name, groups)
    parents, children = runs_of(client, name)
    said = {"base": None, "lr=0.5": "clean", "lr=0.25": "exposed 512 of 4096"}
    assert {title: run.data.tags.get("caddie.legality") for title, run in parents.items()} == said
    assert {(t, run.data.tags.get("caddie.legality")) for (t, _), run in children.items()} == set(said.items())


def test_each_config_shows_the_figures_and_they_are_drawn_again_only_when_they_change(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    grid = [{"score.slot.lr": lr, "score.slot.steps": steps} for lr in (0.1, 0.2) for steps in (1, 2)]

    def artifacts() -> dict[str, dict[str, tuple[int, bytes]]]:
        found = {}
        for title, run in runs_of(client, name)[0].items():
            files = sorted(Path(run.info.artifact_uri.removeprefix("file://"), "figures").iterdir())
            found[title] = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
        return found

    def groups(last: Mapping[int, float]) -> list[GroupResult]:
        trials = [group(overlay, Stage.SLOT, TRIAL) for overlay in grid[:-1]]
        return [group({}, Stage.SLIDING, BASE), *trials, group(grid[-1], Stage.SLOT, last)]

    tracker.sync(view_of([note(name, groups({42: 2.0}))], store, lambda _: False))
    before = artifacts()
    assert {frozenset(files) for files in before.values()} == {frozenset({"heat_map.png", "loss.png", "seeds.png"})}
    assert all(content.startswith(PNG) for files in before.values() for _, content in files.values())
    tracker.sync(view_of([note(name, groups({42: 2.0}))], store, lambda _: False))
    assert artifacts() == before
    tracker.sync(view_of([note(name, groups(TRIAL))], store, lambda _: False))
    assert all(artifacts()[title]["seeds.png"][1] != files["seeds.png"][1] for title, files in before.items())


def test_other_seeds_are_another_row_with_children_of_its_own(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    three, two = group({}, Stage.SLIDING, BASE), group({}, Stage.SLIDING, {42: 2.25, 7: 2.0}, seeds=(42, 7))
    for notes in ([note(name, [three])], [note(name, [three]), note(name, [two], 1.9e9)]):
        tracker.sync(undrawn(notes, store))
    found = client.get_experiment_by_name(name)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    rows = {run.info.run_id: run for run in runs if PARENT not in run.data.tags}
    shown = {}
    for run_id, row in rows.items():
        seeds = {run.data.params["seed"] for run in runs if run.data.tags.get(PARENT) == run_id}
        assert row.data.metrics["n"] == len(seeds)
        shown[row.data.tags["caddie.seeds"]] = (seeds, row.data.metrics["val_bpb_mean"])
    assert shown == {"42, 1337, 2024": ({"42", "1337", "2024"}, 2.375), "42, 7": ({"42", "7"}, 2.125)}


def test_a_config_that_two_experiments_share_is_one_row_of_the_version_that_computed_it(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    base = group({}, Stage.SLIDING, BASE)
    first = note(name, [base, group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)])
    second = note(name, [base, group({"score.slot.lr": 0.25}, Stage.SLOT, TRIAL)], 1.9e9, sha="later")
    seen: list[tuple[int, int]] = []
    assert tracker.sync(undrawn([first], store), lambda *at: seen.append(at)) == Synced(created=8)
    assert seen[-1] == (8, 8)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    done = tracker.sync(undrawn([first, second], store))
    assert (done.created, done.changed) == (4, 0)
    assert tracker.sync(undrawn([first, second], store)) == Synced(unchanged=12)
    parents, _ = runs_of(client, name)
    shas = {title: run.data.tags["caddie.git_sha"] for title, run in parents.items()}
    assert shas == {"base": "abc123", "lr=0.5": "abc123", "lr=0.25": "later"}


def test_the_view_is_rebuilt_from_notes_and_store_as_it_was(
    sync: Sync,
    tracker: MlflowTracker,
    client: MlflowClient,
    name: str,
    group: MakeGroup,
    empty_mlflow: Path,
    tmp_path: Path,
) -> None:
    groups = [
        group({}, Stage.SLIDING, BASE, exposed=0, tokens=4096),
        group({"score.slot.lr": 0.5}, Stage.SLOT, {42: 2.0, 1337: 2.25}),
        failed(group({"score.slot.lr": 0.25}, Stage.SLOT, {42: 2.0}), 1337, "NaN at step 3"),
    ]
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)])
    sync(tracker, name, groups, alive=False)
    shutil.copy(empty_mlflow, tmp_path / "again.db")
    again = MlflowTracker(f"sqlite:///{tmp_path / 'again.db'}", tmp_path / "artifacts")
    assert sync(again, name, groups, alive=False) == Synced(created=12)
    assert told(MlflowClient(again.uri), name) == told(client, name)
    assert {status for _, _, _, status, _ in told(client, name).values()} == {"FINISHED", "FAILED", "KILLED"}


def told(client: MlflowClient, experiment: str) -> dict[str, Any]:
    """All that runs say, by key; a child names its parent by the parent's key."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], max_results=1000)
    keys = {run.info.run_id: run.data.tags["caddie.key"] for run in runs}
    return {
        keys[run.info.run_id]: (
            run.data.params,
            run.data.metrics,
            {tag: keys.get(value, value) for tag, value in run.data.tags.items()},
            run.info.status,
            (run.info.start_time, run.info.end_time),
        )
        for run in runs
    }


def test_what_nobody_runs_any_more_is_killed_until_somebody_finishes_it(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    def statuses() -> dict[str, str]:
        parents, children = runs_of(client, name)
        return {"base": parents["base"].info.status} | {s: run.info.status for (_, s), run in children.items()}

    sync(tracker, name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})], alive=False)
    assert statuses() == {"base": "KILLED", "42": "FINISHED", "1337": "FINISHED", "2024": "KILLED"}
    sync(tracker, name, [group({}, Stage.SLIDING, {})], alive=True)
    assert statuses() == {"base": "RUNNING", "42": "FINISHED", "1337": "FINISHED", "2024": "RUNNING"}
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)], alive=False)
    assert set(statuses().values()) == {"FINISHED"}


def test_a_config_that_was_stopped_by_choice_is_killed_and_says_why(
    tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    whole = note(name, [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, {42: 3.0})])
    base, trial = whole.configs
    stopped = replace(whole, configs=(base, replace(trial, stopped="can't win after 1 seed")))
    tracker.sync(undrawn([stopped], store, alive=True))
    parents, children = runs_of(client, name)
    assert (parents["base"].info.status, parents["lr=0.5"].info.status) == ("FINISHED", "KILLED")
    assert parents["lr=0.5"].data.tags["caddie.stopped"] == "can't win after 1 seed"
    assert {s: run.info.status for (t, s), run in children.items() if t == "lr=0.5"} == {
        "42": "FINISHED",
        "1337": "KILLED",
        "2024": "KILLED",
    }


def test_a_config_s_numbers_are_those_of_its_sample(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)])
    parents, _ = runs_of(client, name)
    metrics = parents["base"].data.metrics
    values = np.array(list(BASE.values()))
    assert metrics["n"] == 3
    assert metrics["failed"] == 0
    assert metrics["val_bpb_mean"] == pytest.approx(values.mean())
    assert metrics["val_bpb_sd"] == pytest.approx(values.std(ddof=1))
    low, high = scipy.stats.t.interval(0.95, 2, values.mean(), scipy.stats.sem(values))
    assert metrics["val_bpb_ci95"] == pytest.approx((high - low) / 2)
    assert parents["base"].info.status == "FINISHED"


def test_one_finished_seed_has_a_mean_and_no_spread(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    sync(tracker, name, [group({}, Stage.SLIDING, {42: 2.25})])
    metrics = runs_of(client, name)[0]["base"].data.metrics
    assert (metrics["n"], metrics["val_bpb_mean"]) == (1, 2.25)
    assert "val_bpb_sd" not in metrics


def test_a_seed_s_run_has_its_score_its_bytes_and_its_wall_clocks(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    result = group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)
    sync(tracker, name, [result])
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
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    result = group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)
    sync(tracker, name, [result])
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
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    plans = {seed: result.plan for seed, result in group({}, Stage.SLIDING, {}).seeds.items()}
    for seed, place, failures in ((42, 1, 1), (1337, 0, 9), (1337, 2, 1)):
        for _ in range(failures):
            store.begin(plans[seed][place].key)
    sync(tracker, name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})])
    assert tries_of(client, name) == {
        "42": ("2", "train 1, pack 2, score.sliding 1"),
        "1337": ("10", "train 10, pack 1, score.sliding 2"),
        "2024": ("0", "train 0, pack 0, score.sliding 0"),
    }
    parents, _ = runs_of(client, name)
    assert not [tag for tag in parents["base"].data.tags if tag.startswith("caddie.attempt")]


def test_a_seed_that_is_tried_again_is_the_same_run_with_a_higher_number(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, store: FolderStore
) -> None:
    waiting = group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})
    store.begin(waiting.seeds[2024].plan[0].key)
    sync(tracker, name, [failed(group({}, Stage.SLIDING, {}), 2024, "the node is gone")])
    before = everything(client, name).keys()
    assert tries_of(client, name)["2024"] == ("1", "train 1, pack 0, score.sliding 0")
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)])
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
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, place: Path
) -> None:
    groups = [
        group({}, Stage.SLIDING, BASE),
        group({"score.slot.lr": 0.5}, Stage.SLOT, {42: 2.0}),
        failed(group({"score.slot.lr": 0.25}, Stage.SLOT, {42: 2.0}), 1337, "NaN at step 3"),
    ]
    sync(tracker, name, groups)
    before = everything(client, name)
    sync(tracker, name, groups)
    assert sync(MlflowTracker(tracker.uri, tracker.artifacts), name, groups) == Synced(unchanged=len(before))
    assert everything(client, name) == before
    assert len(before) == 3 * (1 + len(SEEDS))


def test_a_status_is_true_and_a_failed_seed_says_why(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    sync(tracker, name, [failed(group({}, Stage.SLIDING, {42: 2.25}), 1337, "NaN at step 3")])
    parents, children = runs_of(client, name)
    statuses = {seed: child.info.status for (_, seed), child in children.items()}
    assert statuses == {"42": "FINISHED", "1337": "FAILED", "2024": "RUNNING"}
    assert children["base", "1337"].data.tags["caddie.error"] == "NaN at step 3"
    assert "caddie.error" not in children["base", "42"].data.tags
    assert "val_bpb" not in children["base", "1337"].data.metrics
    assert parents["base"].info.status == "FAILED"
    assert (parents["base"].data.metrics["n"], parents["base"].data.metrics["failed"]) == (1, 1)


def test_a_config_whose_seeds_still_run_is_running(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    sync(tracker, name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})])
    assert runs_of(client, name)[0]["base"].info.status == "RUNNING"


def test_a_seed_that_finishes_later_completes_the_runs_that_are_there(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    sync(tracker, name, [group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5})])
    before = everything(client, name)
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)])
    assert everything(client, name).keys() == before.keys()
    parents, children = runs_of(client, name)
    metrics = parents["base"].data.metrics
    assert (metrics["n"], metrics["val_bpb_mean"]) == (3, pytest.approx(np.mean(list(BASE.values()))))
    assert metrics["val_bpb_sd"] == pytest.approx(np.std(list(BASE.values()), ddof=1))
    assert children["base", "2024"].data.metrics["val_bpb"] == 2.375
    assert {run.info.status for run in (*parents.values(), *children.values())} == {"FINISHED"}


def test_a_seed_that_failed_and_then_finished_is_no_failure_any_more(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    sync(tracker, name, [failed(group({}, Stage.SLIDING, {42: 2.25, 1337: 2.5}), 2024, "the node is gone")])
    assert runs_of(client, name)[0]["base"].info.status == "FAILED"
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)])
    parents, children = runs_of(client, name)
    assert {run.info.status for run in (*parents.values(), *children.values())} == {"FINISHED"}
    assert parents["base"].data.metrics["failed"] == 0
    assert not children["base", "2024"].data.tags.get("caddie.error")


def test_a_sync_that_broke_off_is_completed_by_the_next(
    sync: Sync,
    tracker: MlflowTracker,
    client: MlflowClient,
    name: str,
    group: MakeGroup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    sync(tracker, f"{name}-whole", groups)
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
                sync(tracker, f"{name}-{broken}", groups)
        sync(tracker, f"{name}-{broken}", groups)
        assert contents_of(client, f"{name}-{broken}") == contents_of(client, f"{name}-whole")


def test_two_drivers_that_sync_at_once_make_each_run_once(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, place: Path
) -> None:
    groups = [group({}, Stage.SLIDING, BASE), group({"score.slot.lr": 0.5}, Stage.SLOT, TRIAL)]
    others = [MlflowTracker(tracker.uri, tracker.artifacts) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda other: sync(other, name, groups), others))
    sync(tracker, f"{name}-whole", groups)
    assert contents_of(client, name) == contents_of(client, f"{name}-whole")


def contents_of(client: MlflowClient, experiment: str) -> list[Any]:
    """What the runs of an experiment say: the configs by title, the seeds by title and seed."""
    parents, children = runs_of(client, experiment)
    runs: list[tuple[Any, Run]] = [*parents.items(), *children.items()]
    return sorted((str(key), run.data.params, run.data.metrics, run.info.status) for key, run in runs)


def test_the_same_config_in_two_sweeps_is_in_both(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    result = group({}, Stage.SLIDING, BASE)
    for experiment in (f"{name}-1", f"{name}-2"):
        sync(tracker, experiment, [result])
        assert len(runs_of(client, experiment)[1]) == 3


def test_a_trial_that_equals_the_base_is_the_same_run_and_is_completed_like_any_other(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup
) -> None:
    same = {"score.slot.lr": 0.008}  # what the recipe has anyway
    for values in ({42: 2.25}, BASE):
        sync(tracker, name, [group({}, Stage.SLOT, values), group(same, Stage.SLOT, values)])
    runs = everything(client, name)
    assert len(runs) == 1 + len(SEEDS)
    assert {status for *_, (status, *_) in runs.values()} == {"FINISHED"}


def test_artifacts_go_where_we_say_and_not_to_the_working_folder(
    sync: Sync, tracker: MlflowTracker, client: MlflowClient, name: str, group: MakeGroup, place: Path
) -> None:
    sync(tracker, name, [group({}, Stage.SLIDING, BASE)])
    found = client.get_experiment_by_name(name)
    assert found is not None
    assert found.artifact_location.startswith((place / "artifacts").as_uri())


def test_a_server_that_does_not_answer_is_our_error_within_seconds(
    sync: Sync, tmp_path: Path, group: MakeGroup
) -> None:
    started = time.monotonic()
    with pytest.raises(CaddieError, match=re.escape("127.0.0.1")):
        sync(MlflowTracker("http://127.0.0.1:9", tmp_path), "x", [group({}, Stage.SLIDING, BASE)])
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("uri", ["sqlite:///{}/file/below.db", "sqlite:///{}/file", "nonsense://{}"])
def test_a_store_that_cannot_be_opened_is_our_error(sync: Sync, tmp_path: Path, uri: str, group: MakeGroup) -> None:
    (tmp_path / "file").write_text("not a database")
    with pytest.raises(CaddieError, match="MLflow"):
        sync(MlflowTracker(uri.format(tmp_path), tmp_path), "x", [group({}, Stage.SLIDING, {})])
