from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from service.adapters.store_fs import FolderStore
from service.spec import RunSpec
from service.spent import spent_on, spent_since, tried_before
from service.stages import PlannedStage, plan_seed


@pytest.fixture
def plan(spec: RunSpec, corpus: Corpus) -> tuple[PlannedStage, ...]:
    return plan_seed(spec, 7, corpus)


def take(store: FolderStore, one: PlannedStage, gang_s: float, company: int = 1) -> None:
    """Let a finished stage say what its gang took."""
    path = store.folder(one.key) / "key.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gang_s": gang_s, "company": company}))


def broken_try(store: FolderStore, one: PlannedStage, began_s: float, spoke_s: float) -> Path:
    attempt = store.begin(one.key)
    for name in ("job.json", "log.txt"):
        (attempt / name).write_text("{}")
    for path, at in ((attempt / "log.txt", spoke_s), (attempt / "job.json", began_s), (attempt, began_s)):
        os.utime(path, (at, at))
    return attempt


def test_what_is_new_is_charged_for_its_ranks_and_what_was_there_is_not(
    store: FolderStore, plan: tuple[PlannedStage, ...], finish: Callable[..., Any]
) -> None:
    train, pack, sliding, slot = plan
    finish(store, train)
    take(store, train, 1e6)
    before = tried_before(store, [one.key for one in plan])
    for one, gang_s, company in ((pack, 10.0, 1), (sliding, 20.0, 1), (slot, 60.0, 4)):
        finish(store, one)
        take(store, one, gang_s, company)
    ranks = {train.key: 8, pack.key: 1, sliding.key: 8, slot.key: 8}
    spent = spent_since(store, ranks, before)
    assert spent.computed == {pack.key, sliding.key, slot.key}
    assert spent.gpu_hours == pytest.approx((10 + 8 * 20 + 8 * 60 / 4) / 3600)


def test_a_failed_try_is_charged_from_its_job_to_the_last_line_of_its_log(
    store: FolderStore, plan: tuple[PlannedStage, ...], finish: Callable[..., Any]
) -> None:
    train = plan[0]
    broken_try(store, train, began_s=1000.0, spoke_s=1090.0)
    assert spent_since(store, {train.key: 2}, {}).gpu_hours == pytest.approx(2 * 90 / 3600)
    finish(store, train)
    take(store, train, 30.0)
    spent = spent_since(store, {train.key: 2}, {})
    assert (spent.computed, spent.gpu_hours) == ({train.key}, pytest.approx(2 * (90 + 30) / 3600))


def test_what_runs_is_charged_up_to_now_and_a_gang_once_for_all_that_it_carries(
    store: FolderStore, spec: RunSpec, corpus: Corpus
) -> None:
    first, along = (plan_seed(spec.at({"score.slot.lr": lr}), 7, corpus)[3] for lr in (0.1, 0.2))
    company = store.begin(along.key)
    (company / "log.txt").write_text("scored:10% running_bpb:2.5\n")
    attempt = broken_try(store, first, began_s=1000.0, spoke_s=1010.0)
    (attempt / "job.json").write_text(json.dumps({"alongside": {f"/x/{along.key}/1/out": {}}}))
    os.utime(attempt, (1000, 1000))

    def hours(*running: PlannedStage) -> float:
        ranks = {first.key: 4, along.key: 4}
        return spent_on(store, ranks, lambda _: True, [one.key for one in running], now_s=1100.0).gpu_hours

    assert store.gang_of(company) == attempt
    assert hours(first, along) == pytest.approx(4 * 100 / 3600)
    assert hours() == pytest.approx(4 * 10 / 3600)
