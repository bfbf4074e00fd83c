from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from model.data.shards import Corpus
from service.adapters.purse import Purse
from service.errors import BudgetSpent
from service.money import Ledger
from service.spec import RunSpec
from service.stages import PlannedStage, plan_seed

HOUR_S = 3600.0


@pytest.fixture
def stages(spec: RunSpec, corpus: Corpus) -> list[PlannedStage]:
    """Five stages of one rank; the plan expects an hour of each."""
    planned = plan_seed(spec, 42, corpus)[0]
    return [replace(planned, key=f"train-{i:016x}", seed=i) for i in range(5)]


def ledger_of(stages: list[PlannedStage], limit: float) -> Ledger:
    return Ledger(limit=limit, expected={planned.key: 1.0 for planned in stages})


def test_a_stage_waits_until_a_running_one_turns_out_cheap_enough(stages: list[PlannedStage]) -> None:
    async def play() -> list[str]:
        purse, seen = Purse(ledger_of(stages, 2.0)), []

        async def one(planned: PlannedStage) -> None:
            await purse.reserve(planned)
            seen.append(planned.key)

        await purse.reserve(stages[0])
        await purse.reserve(stages[1])
        waiting = [asyncio.create_task(one(planned)) for planned in stages[2:4]]
        await asyncio.sleep(0)
        assert seen == []
        purse.settle([stages[0]], 0.1 * HOUR_S)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [], "1.1 are out, and 2.1 would be too many"
        purse.settle([stages[1]], 0.1 * HOUR_S)
        await waiting[0]
        assert seen == [stages[2].key]
        purse.settle([stages[2]], 0.1 * HOUR_S)
        await waiting[1]
        return seen

    assert asyncio.run(play()) == [stages[2].key, stages[3].key]


def test_who_waits_is_refused_by_name_once_the_money_is_gone(stages: list[PlannedStage]) -> None:
    async def play() -> Ledger | None:
        purse = Purse(ledger_of(stages, 1.5))
        await purse.reserve(stages[0])
        waiting = asyncio.create_task(purse.reserve(stages[1]))
        await asyncio.sleep(0)
        purse.settle([stages[0]], HOUR_S)
        with pytest.raises(BudgetSpent, match=r"stage train of seed 1 was not launched: it needs 1 GPU-h"):
            await waiting
        return purse.ledger

    ledger = asyncio.run(play())
    assert ledger is not None
    assert (ledger.spent, list(ledger.refused)) == (1.0, [stages[1].key])


def test_those_who_share_a_gang_share_its_time(stages: list[PlannedStage]) -> None:
    purse = Purse(ledger_of(stages, 9.0))
    purse.settle(stages[:4], HOUR_S)
    assert purse.ledger is not None
    assert purse.ledger.spent == pytest.approx(1.0)


def test_without_a_budget_nobody_waits(stages: list[PlannedStage]) -> None:
    async def play() -> None:
        purse = Purse(None)
        for planned in stages:
            await purse.reserve(planned)
            purse.release(planned)
        purse.settle(stages, HOUR_S)

    asyncio.run(play())


def test_a_stage_that_the_plan_did_not_know_is_reserved_for_until_its_deadline(stages: list[PlannedStage]) -> None:
    purse = Purse(Ledger(limit=9.0))
    asyncio.run(purse.reserve(stages[0]))
    assert purse.ledger is not None
    assert purse.ledger.reserved == {stages[0].key: stages[0].deadline_s / HOUR_S}


def test_of_a_kind_that_the_plan_knows_it_is_reserved_for_at_what_that_takes(stages: list[PlannedStage]) -> None:
    purse = Purse(Ledger(limit=9.0, expected={stages[0].key: 1.0}, typical={"train": 2.0, "pack": 3.0}))
    for planned in stages[:2]:
        asyncio.run(purse.reserve(planned))
    assert purse.ledger is not None
    assert purse.ledger.reserved == {stages[0].key: 1.0, stages[1].key: 2.0}
