from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.money import Price
from service.notes import ExperimentNote, note_of
from service.report.money import money_of
from service.spec import RunSpec

SEEDS = (7, 8)
BEGUN_S = 2_000_000.0


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    wide = spec.at({"gang.ranks": 2})
    base = contend(wide, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    return Experiment(name="x", seeds=SEEDS, contenders=(base,))


@pytest.fixture
def note(experiment: Experiment) -> ExperimentNote:
    return note_of(experiment, git_sha="", git_dirty=False, started_s=BEGUN_S)


def dated(store: FolderStore, key: str, begun_s: float, ended_s: float | None = None) -> None:
    """Give the newest try of a stage the times of its beginning and of its last word."""
    attempt = store.tries(key)[-1]
    for path in (*attempt.rglob("*"), attempt):
        os.utime(path, (begun_s, ended_s or begun_s) if path.name == "log.txt" else (begun_s, begun_s))


def test_hours_are_ranks_times_what_gangs_took_by_what_became_of_them(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    first, second = (experiment.base.plans[seed] for seed in SEEDS)
    for planned in first:
        finish(store, planned)
        dated(store, planned.key, BEGUN_S - 50)  # before it was begun last
    lost = store.begin(second[0].key)
    (lost / "log.txt").write_text("step:1/9\n")
    dated(store, second[0].key, BEGUN_S, BEGUN_S + 360)  # and then it was gone
    os.utime(lost / "log.txt", (BEGUN_S, BEGUN_S + 360))
    finish(store, second[0])
    dated(store, second[0].key, BEGUN_S + 400)
    money = money_of(note, store, Price(node_usd_per_hour=16.0))
    took = {key: store.made_of(key).gang_s for key in (*(one.key for one in first), second[0].key)}  # type: ignore[union-attr]
    assert (money.computed.count, money.cached.count, money.failed.count, money.missing) == (1, 3, 1, 2)
    assert money.computed.gpu_hours == pytest.approx(2 * took[second[0].key] / 3600)
    assert money.cached.gpu_hours == pytest.approx(2 * sum(took[one.key] for one in first) / 3600)
    assert money.failed.gpu_hours == pytest.approx(2 * 360 / 3600)
    assert money.all_gpu_hours == pytest.approx(2 * (sum(took.values()) + 360) / 3600)
    assert money.on_cpu


def test_nothing_run_costs_nothing(note: ExperimentNote, store: FolderStore) -> None:
    money = money_of(note, store, Price())
    assert (money.all_gpu_hours, money.missing) == (0.0, 6)
