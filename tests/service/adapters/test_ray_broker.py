"""The broker's decisions, in this process; tests/flow has it on Ray."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.attempt import Outcome
from service.adapters.ray_broker import Answer, Broker
from service.adapters.store_fs import FolderStore
from service.adapters.stores import StoreAt, open_store
from service.errors import FailureKind
from service.money import Ledger
from service.results import SeedResult, SeedStatus
from service.spec import RunSpec
from service.stages import PlannedStage, plan_seed

HERE: Any = Broker.__ray_metadata__.modified_class  # type: ignore[attr-defined]
"""The class itself, without an actor around it."""
HOUR_S = 3600.0
LOST = Outcome(kind=FailureKind.INFRASTRUCTURE, why="the node is gone")


class Gangs:
    """Gangs of one shape that finish at once, each after an hour on the bill; the first ``losses`` are lost."""

    def __init__(self, store: FolderStore, finish: Callable[..., Any], losses: int = 0) -> None:
        self.store, self.finish, self.losses = store, finish, losses
        self.ran: list[tuple[Stage, ...]] = []

    async def run(
        self, planned: PlannedStage, choose: Callable[[], Sequence[PlannedStage]], priority: int
    ) -> list[Outcome]:
        for _ in range(3):
            await asyncio.sleep(0)  # so that others may join
        group = choose()
        self.ran.append(tuple(planned.stage for planned in group))
        if len(self.ran) <= self.losses:
            return [replace(LOST, gang_s=HOUR_S) for _ in group]
        return [Outcome(report=self.finish(self.store, planned), gang_s=HOUR_S) for planned in group]


def play(
    store: FolderStore, gangs: Gangs, plans: Sequence[tuple[PlannedStage, ...]], ledger: Ledger | None
) -> list[SeedResult]:
    broker = HERE(StoreAt(home=store.stages.parent), ledger)
    broker.pools[plans[0][0].gang] = gangs

    async def seeds() -> list[SeedResult]:
        return await asyncio.gather(*(broker.seed(plan) for plan in plans))

    return asyncio.run(seeds())


def ledger_of(plans: Sequence[tuple[PlannedStage, ...]], limit: float) -> Ledger:
    return Ledger(limit=limit, expected={planned.key: 1.0 for plan in plans for planned in plan})


def test_when_the_budget_is_spent_running_stages_end_and_nothing_more_is_launched(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]
) -> None:
    plans = [plan_seed(spec, seed, corpus, (Stage.SLIDING,)) for seed in (1, 2)]
    ledger, gangs = ledger_of(plans, 3.0), Gangs(store, finish)
    results = play(store, gangs, plans, ledger)
    assert [stage for (stage,) in gangs.ran] == [Stage.TRAIN, Stage.TRAIN, Stage.PACK]
    assert ledger.spent == pytest.approx(3.0)
    assert len(ledger.refused) == 2
    assert [result.status for result in results] == [SeedStatus.FAILED] * 2
    assert results[0].error.startswith("stage score.sliding of seed 1 was not launched: it needs 1 GPU-h")
    assert results[1].error.startswith("stage pack of seed 2 was not launched: it needs 1 GPU-h")
    assert [store.find(planned.key) is not None for planned in plans[0]] == [True, True, False]
    again = Gangs(store, finish)
    assert [r.status for r in play(store, again, plans, ledger_of(plans, 3.0))] == [SeedStatus.DONE] * 2
    assert len(again.ran) == 3, "what was paid is kept, and the next budget begins behind it"


def test_a_lost_try_is_charged_and_what_is_finished_is_not(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]
) -> None:
    plans = [plan_seed(spec, 1, corpus, (Stage.SLIDING,))]
    finish(store, plans[0][0])
    ledger, gangs = ledger_of(plans, 9.0), Gangs(store, finish, losses=2)
    (result,) = play(store, gangs, plans, ledger)
    assert result.status is SeedStatus.DONE
    assert [stage for (stage,) in gangs.ran] == [Stage.PACK] * 3 + [Stage.SLIDING]
    assert ledger.spent == pytest.approx(4.0)
    assert ledger.reserved == {}


def test_stages_that_share_a_gang_are_charged_once(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]
) -> None:
    plans = [plan_seed(spec.at({"score.slot.lr": lr}), 1, corpus, (Stage.SLOT,)) for lr in (0.1, 0.2, 0.3)]
    for planned in plans[0][:2]:
        finish(store, planned)
    ledger, gangs = ledger_of(plans, 3.0), Gangs(store, finish)
    results = play(store, gangs, plans, ledger)
    assert gangs.ran == [(Stage.SLOT,) * 3]
    assert {result.status for result in results} == {SeedStatus.DONE}
    assert ledger.spent == pytest.approx(1.0)


def test_a_broker_that_loses_its_lease_ends_its_gang_and_takes_the_other_s_result(
    spec: RunSpec, corpus: Corpus, finish: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    from service.adapters.leases import LEASE_S, Leases

    monkeypatch.setenv("CADDIE_HOME", str(tmp_path / "node"))
    at, clock = StoreAt(home=tmp_path / "driver", url=f"file://{tmp_path}/remote"), [0.0]
    broker, elsewhere = HERE(at), open_store(StoreAt(home=tmp_path / "elsewhere", url=at.url))
    broker.store.look_again_s = 0.01
    other = Leases(elsewhere.remote, lambda: clock[0])
    ended: list[str] = []
    (train, *_) = plan_seed(spec, 1, corpus, (Stage.SLIDING,))

    class Stolen:
        async def run(
            self, _: PlannedStage, choose: Callable[[], Sequence[PlannedStage]], priority: int
        ) -> list[Outcome]:
            (planned,) = choose()
            with other.hold(planned.key) as ours:
                assert not ours
            clock[0] += LEASE_S
            with other.hold(planned.key) as ours:
                assert ours, "while this process stood still"
                try:
                    await asyncio.to_thread(broker.store.leases.renew)
                    await asyncio.sleep(60)
                finally:
                    ended.append(planned.key)
                    finish(elsewhere, planned)
            raise AssertionError("the gang was not ended")

    broker.pools[train.gang] = Stolen()
    result = asyncio.run(broker.seed((train,)))
    assert ended == [train.key]
    assert result.reports[Stage.TRAIN] == elsewhere.find(train.key)
    assert other.taken() == set()


def test_a_reused_stage_that_is_gone_is_never_computed_under_its_key(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]
) -> None:
    train, *rest = plan_seed(spec, 1, corpus, (Stage.SLIDING,))
    reused = replace(train, key="train-0123456789abcdef", stands_for=train.key)
    gangs = Gangs(store, finish)
    (result,) = play(store, gangs, [(reused, *rest)], None)
    assert "train-0123456789abcdef, which was to be reused, isn't there any more" in result.error
    assert gangs.ran == []


def test_trials_are_run_whether_or_not_anybody_waits_and_each_seed_answers_in_its_place(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.ray_broker.places_for", lambda _: 1)
    rates = (0.1, 0.2, 0.3)
    plans = [
        [plan_seed(spec.at({"score.slot.lr": lr}), seed, corpus, (Stage.SLOT,)) for seed in (1, 2)] for lr in rates
    ]
    broker = HERE(StoreAt(home=store.stages.parent), None)
    broker.pools[plans[0][0][0].gang] = gangs = Gangs(store, finish)

    async def trials() -> list[list[Answer]]:
        ticket = await broker.take(plans)
        late = await broker.answer(ticket, 2, 1)
        first = [[await broker.answer(ticket, trial, place) for place in range(2)] for trial in range(3)]
        assert first[2][1] == late
        return first

    answers = asyncio.run(trials())
    assert [[(one.seed, one.last, one.error) for one in trial] for trial in answers] == [
        [(1, False, ""), (2, True, "")]
    ] * 3
    for trial, seeds in zip(answers, plans, strict=True):
        for answer, plan in zip(trial, seeds, strict=True):
            report = store.find(plan[-1].key)
            assert report is not None
            assert answer.val_bpb == report.metrics["val_bpb"]
    assert sum(ran.count(Stage.TRAIN) for ran in gangs.ran) == 2, "trials share their seeds' trainings"


def test_a_failed_seed_answers_with_its_error_and_the_other_trials_go_on(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.ray_broker.places_for", lambda _: 1)
    plans = [[plan_seed(spec, seed, corpus, (Stage.SLIDING,))] for seed in (1, 2)]
    broker = HERE(StoreAt(home=store.stages.parent), None)

    class OneFails(Gangs):
        async def run(
            self, planned: PlannedStage, choose: Callable[[], Sequence[PlannedStage]], priority: int
        ) -> list[Outcome]:
            if planned.seed == 1:
                return [Outcome(kind=FailureKind.BUG, why="NaN") for _ in choose()]
            return await super().run(planned, choose, priority)

    broker.pools[plans[0][0][0].gang] = OneFails(store, finish)

    async def trials() -> list[Answer]:
        ticket = await broker.take(plans)
        return [await broker.answer(ticket, trial, 0) for trial in range(2)]

    failed, fine = asyncio.run(trials())
    assert "NaN" in failed.error
    assert math.isnan(failed.val_bpb)
    assert (fine.error, fine.val_bpb > 0) == ("", True)


def test_no_more_seeds_are_under_way_than_there_is_room_for(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.ray_broker.places_for", lambda _: 1)
    monkeypatch.setattr("service.adapters.ray_broker.IN_FLIGHT", 3)
    plans = [[plan_seed(spec, seed, corpus, (Stage.SLIDING,))] for seed in range(9)]
    broker = HERE(StoreAt(home=store.stages.parent), None)
    under_way: list[int] = []

    class Counts(Gangs):
        async def run(
            self, planned: PlannedStage, choose: Callable[[], Sequence[PlannedStage]], priority: int
        ) -> list[Outcome]:
            under_way.append(sum(not task.done() for task in broker.flights.values()))
            return await super().run(planned, choose, priority)

    broker.pools[plans[0][0][0].gang] = Counts(store, finish)

    async def trials() -> None:
        ticket = await broker.take(plans)
        for trial in range(9):
            await broker.answer(ticket, trial, 0)

    asyncio.run(trials())
    assert max(under_way) == 3
