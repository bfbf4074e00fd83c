from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.notes import ExperimentNote, note_of
from service.progress import last_line
from service.spec import RunSpec
from service.status import status_json

SEEDS = (7, 8)
NOW = 5000.0


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    trial = contend(spec.at({"score.slot.lr": 0.5}), {"score.slot.lr": 0.5}, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,))
    return Experiment(name="rates-tiny", seeds=SEEDS, contenders=(base, trial))


@pytest.fixture
def note(experiment: Experiment) -> ExperimentNote:
    return note_of(experiment, git_sha="", git_dirty=False, started_s=4000.0)


def finish_all(
    experiment: Experiment, store: FolderStore, finish: Callable[..., Any], config: int, **metrics: float
) -> None:
    for seed, plan in experiment.contenders[config].plans.items():
        for planned in plan:
            if store.find(planned.key) is None:
                numbers = metrics | {"val_bpb": metrics["val_bpb"] + seed / 100} if planned is plan[-1] else None
                finish(store, planned, numbers)


def only(note: ExperimentNote, store: FolderStore, alive: bool = False) -> dict[str, Any]:
    (row,) = status_json([note], store, lambda _: alive, NOW)["experiments"]
    return dict(row)


def test_an_experiment_counts_its_seeds_and_names_its_best_config(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    assert only(note, store)["seeds"] == {"done": 0, "failed": 0, "total": 4}
    assert only(note, store)["best"] is None
    finish_all(experiment, store, finish, 0, val_bpb=2.0)
    assert only(note, store)["best"]["config"] == "base"
    finish_all(experiment, store, finish, 1, val_bpb=1.5)
    row = only(note, store)
    values = [1.5 + seed / 100 for seed in SEEDS]
    assert (row["name"], row["begun_s"], row["configs"]) == ("rates-tiny", 1000.0, 2)
    assert row["seeds"] == {"done": 4, "failed": 0, "total": 4}
    assert (row["best"]["config"], row["best"]["score"], row["best"]["n"]) == ("lr=0.5", "score.slot", 2)
    assert row["best"]["mean_bpb"] == pytest.approx(np.mean(values))
    assert row["best"]["sd_bpb"] == pytest.approx(np.std(values, ddof=1))


def test_the_best_config_is_an_honest_one_while_there_is_one(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    finish_all(experiment, store, finish, 1, val_bpb=1.5, exposed=10, tokens=100)
    assert (only(note, store)["best"]["config"], only(note, store)["best"]["leaks"]) == ("lr=0.5", True)
    finish_all(experiment, store, finish, 0, val_bpb=2.0, exposed=0, tokens=100)
    assert (only(note, store)["best"]["config"], only(note, store)["best"]["leaks"]) == ("base", False)


def test_a_state_is_what_can_still_come_of_it(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    base, trial = note.configs
    failed = replace(note, configs=(base, replace(trial, errors={7: "NaN at step 3"})))
    stopped = replace(note, configs=(base, replace(trial, stopped="can't win")))
    assert only(note, store, alive=True)["state"] == "running"
    assert only(note, store)["state"] == "interrupted"
    assert only(failed, store)["state"] == "failed"
    assert only(failed, store)["errors"] == [{"config": "lr=0.5", "seed": 7, "error": "NaN at step 3", "key": None}]
    tried = experiment.contenders[1].plans[7][0].key
    store.begin(tried)
    assert only(failed, store)["errors"][0]["key"] == tried
    finish_all(experiment, store, finish, 0, val_bpb=2.0)
    assert only(stopped, store)["state"] == "done"
    finish_all(experiment, store, finish, 1, val_bpb=1.5)
    assert only(failed, store)["state"] == "done", "finished since, by whomever"
    assert only(failed, store)["errors"] == []


def test_a_running_stage_is_shown_with_whose_it_is_since_when_and_its_last_line(
    note: ExperimentNote, experiment: Experiment, store: FolderStore
) -> None:
    assert status_json([note], store, lambda _: True, NOW)["running"] == []
    planned = experiment.base.plans[8][0]
    attempt = store.begin(planned.key)
    (attempt / "log.txt").write_text("step:1/9\nstep:2/9 train_loss:5.5\n\n")
    with store.lock(planned.key), store.lock("audit-0123"):
        store.begin("audit-0123")
        began = attempt.stat().st_mtime
        rows = status_json([note], store, lambda _: True, began + 60)["running"]
    by_key = {row["key"]: row for row in rows}
    row = by_key[planned.key]
    assert (row["stage"], row["seed"], row["experiment"]) == ("train", 8, "rates-tiny")
    assert row["last_line"] == "step:2/9 train_loss:5.5"
    assert 60 <= row["age_s"] < 120
    assert (by_key["audit-0123"]["stage"], by_key["audit-0123"]["experiment"]) == ("audit", None)
    assert by_key["audit-0123"]["last_line"] == ""


def test_looking_changes_nothing_not_even_a_damaged_entry(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    finish_all(experiment, store, finish, 0, val_bpb=2.0)
    home = store.stages.parent
    (store.folder(experiment.base.plans[7][0].key) / "output.bin").write_bytes(b"damaged")

    def contents() -> dict[str, Any]:
        return {str(p): (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in sorted(home.rglob("*"))}

    before = contents()
    status_json([note], store, lambda _: False, NOW)
    assert contents() == before


def test_the_last_line_of_a_long_log_is_found_at_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("x" * 100_000 + "\nthe end é\n  \n", encoding="utf-8")
    assert last_line(log) == "the end é"
    assert last_line(tmp_path / "gone") == ""


def test_experiments_are_listed_newest_first(note: ExperimentNote, store: FolderStore) -> None:
    notes = [replace(note, name=name, started_s=at) for name, at in (("a", 1.0), ("b", 3.0), ("c", 2.0))]
    rows = status_json(notes, store, lambda _: False, NOW)["experiments"]
    assert [row["name"] for row in rows] == ["b", "c", "a"]
