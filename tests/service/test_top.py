from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.logs import short
from service.money import Price
from service.notes import ExperimentNote, from_json, note_of, to_json
from service.spec import RunSpec
from service.stages import PlannedStage
from service.top import CELLS, experiment_line, stage_cells, top_json

SEEDS = (7, 8)
BEGAN = 10_000.0
PRICE = Price(node_usd_per_hour=16.0)


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    spec = spec.at({"gang.ranks": 2})
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    trial = contend(spec.at({"score.slot.lr": 0.5}), {"score.slot.lr": 0.5}, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,))
    return Experiment(name="rates-tiny", seeds=SEEDS, contenders=(base, trial))


@pytest.fixture
def note(experiment: Experiment) -> ExperimentNote:
    return note_of(experiment, git_sha="", git_dirty=False, started_s=BEGAN)


def begin(store: FolderStore, one: PlannedStage, text: str, began_s: float, spoke_s: float) -> Path:
    attempt = store.begin(one.key)
    for name, body in (("job.json", "{}"), ("log.txt", text)):
        (attempt / name).write_text(body)
    for path, at in ((attempt / "log.txt", spoke_s), (attempt / "job.json", began_s), (attempt, began_s)):
        os.utime(path, (at, at))
    return attempt


def test_a_running_training_is_shown_with_its_step_pace_and_silence(
    note: ExperimentNote, experiment: Experiment, store: FolderStore
) -> None:
    train = experiment.base.plans[8][0]
    text = "step:1/200 train_loss:6.9 train_time:900ms\nstep:50/200 train_loss:4.7470 train_time:16000ms step_avg:3ms\n"
    begin(store, train, text, BEGAN + 5, BEGAN + 30)
    with store.lock(train.key):
        data = top_json([note], store, lambda _: True, PRICE, BEGAN + 105)
    (row,) = data["running"]
    assert (row["key"], row["experiment"], row["stage"], row["seed"]) == (train.key, "rates-tiny", "train", 8)
    assert (row["part"], row["step"], row["loss_nats"], row["val_bpb"]) == (0.25, "50/200", 4.747, None)
    assert (row["elapsed_s"], row["silent_s"], row["eta_s"]) == (100, 75, pytest.approx(48))
    assert (row["ranks"], row["device"], row["attempt"], row["state"]) == (2, "cpu", 1, "running")
    shown = [short(train.key), "8", "rates-tiny", "2 x cpu", "1", "1:40", "50/200", "loss 4.7470", "0:48", "1:15"]
    assert stage_cells(row) == shown
    assert len(CELLS) == len(shown)


def test_a_running_score_is_shown_with_its_part_of_the_stream_and_running_bpb(
    note: ExperimentNote, experiment: Experiment, store: FolderStore
) -> None:
    score = experiment.contenders[1].plans[7][-1]
    begin(store, score, "scored:10% running_bpb:2.5000\nscored:40% running_bpb:2.2912\n", BEGAN, BEGAN + 60)
    with store.lock(score.key):
        (row,) = top_json([note], store, lambda _: True, PRICE, BEGAN + 60)["running"]
    assert (row["part"], row["val_bpb"], row["loss_nats"]) == (0.4, 2.2912, None)
    assert (row["eta_s"], row["silent_s"]) == (pytest.approx(90), 0)
    assert stage_cells(row)[6:8] == ["40%", "bpb 2.2912"]


def test_a_stage_that_waits_for_its_next_try_does_not_look_as_if_it_ran(
    note: ExperimentNote, experiment: Experiment, store: FolderStore
) -> None:
    train = experiment.base.plans[8][0]
    attempt = begin(store, train, "step:1/200 train_loss:6.9 train_time:900ms\n", BEGAN, BEGAN + 1)
    (attempt / "out").mkdir()
    (attempt / "out" / "failure.0.json").write_text('{"rank": 0, "error": "x", "traceback": ""}')
    with store.lock(train.key):
        (row,) = top_json([note], store, lambda _: True, PRICE, BEGAN + 60)["running"]
    assert (row["state"], row["eta_s"], stage_cells(row)[6]) == ("waiting", None, "waits")


def test_an_experiment_under_way_counts_its_stages_and_what_it_has_spent(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    old, train = experiment.base.plans[7][0], experiment.base.plans[8][0]
    finish(store, old)
    os.utime(store.tries(old.key)[0], (1, 1))
    os.utime(store.tries(old.key)[0] / "log.txt", (1, 1))
    begin(store, train, "", BEGAN, BEGAN)
    budgeted = from_json(to_json(replace(note, budget_gpu_hours=1.0)))
    with store.lock(train.key):
        data = top_json([budgeted], store, lambda _: True, PRICE, BEGAN + 900)
    (row,) = data["experiments"]
    assert (row["name"], row["elapsed_s"]) == ("rates-tiny", 900)
    assert (row["seeds"], row["stages"]) == ({"done": 0, "total": 4}, {"done": 1, "total": 8})
    assert (row["gpu_hours"], row["usd"]) == pytest.approx((2 * 900 / 3600, 2 * 900 / 3600 * 16 / 8))
    assert (row["left_gpu_hours"], row["left_usd"]) == pytest.approx((0.5, 1.0))
    line = experiment_line(row, PRICE)
    assert (
        line
        == "rates-tiny: 0/4 seeds, 1/8 stages, 15:00, 0.5 GPU-h (1.00 USD), 0.5 GPU-h (1.00 USD) left of the budget"
    )
    assert "left" not in experiment_line(row | {"left_gpu_hours": None}, PRICE)


def test_what_no_driver_runs_is_not_under_way(note: ExperimentNote, store: FolderStore) -> None:
    data = top_json([note], store, lambda _: False, PRICE)
    assert (data["experiments"], data["running"]) == ([], [])


def test_looking_changes_nothing(note: ExperimentNote, experiment: Experiment, store: FolderStore) -> None:
    begin(store, experiment.base.plans[8][0], "step:1/9\n", BEGAN, BEGAN)
    before = {str(path): path.stat().st_mtime_ns for path in store.stages.parent.rglob("*")}
    with store.lock(experiment.base.plans[8][0].key):
        before |= {str(path): path.stat().st_mtime_ns for path in store.stages.parent.rglob("*")}
        top_json([note], store, lambda _: True, PRICE)
        assert {str(path): path.stat().st_mtime_ns for path in store.stages.parent.rglob("*")} == before
