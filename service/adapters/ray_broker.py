"""The broker: computes each stage key once, whoever asks.

The broker and its gangs belong to the driver: when the driver ends in any way, Ray ends them, and the leash ends
their processes. Only the store outlives a driver.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ray

from model.report import StageReport
from model.stages import Stage
from service.adapters.attempt import Outcome
from service.adapters.flight import ask, computed_once
from service.adapters.purse import Purse
from service.adapters.ray_cluster import places_for
from service.adapters.ray_gang import GangPool
from service.adapters.stores import StoreAt, open_store
from service.errors import CaddieError, FailureKind, StageFailed
from service.failures import RETRIES
from service.faults import Point, fault
from service.money import Ledger
from service.nodes import Checks
from service.ports import Plan
from service.results import SeedResult
from service.spec import GangShape
from service.stages import PlannedStage

IN_FLIGHT = 32
"""Seeds of trials under way at least; each holds a lock, and those that go together find each other among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of one seed of a trial."""

    seed: int
    val_bpb: float
    """Of its headline; NaN where it failed."""
    error: str
    last: bool
    """Whether it was the trial's last seed."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stage that may be run together with others."""

    planned: PlannedStage
    answer: asyncio.Future[Outcome | None]


@ray.remote(num_cpus=0, max_restarts=0, max_concurrency=10_000)
class Broker:
    """Single flight over stage keys: within this driver by task, across drivers by a lock in the store."""

    def __init__(self, at: StoreAt, ledger: Ledger | None = None, checks: Checks = Checks.AUTO) -> None:
        self.at, self.store, self.purse = at, open_store(at.from_here()), Purse(ledger)
        self.checks = checks
        self.flights: dict[str, asyncio.Task[StageReport]] = {}
        self.pools: dict[GangShape, GangPool] = {}
        self.gathering: dict[str, list[Waiting]] = {}
        """Stages that go together and wait for a gang, by what they share."""
        self.trials: list[list[list[asyncio.Task[SeedResult]]]] = []
        """The seeds of each trial, by ticket."""

    async def seed(self, plan: Plan, launch: bool = True) -> SeedResult:
        """Run what is missing of a seed's chain; scores run side by side once the artifact is there.

        Without ``launch`` it only tells what has become of the stages that somebody asked for.
        """
        reports: dict[Stage, StageReport] = {}
        asked = plan if launch else tuple(planned for planned in plan if planned.key in self.flights)
        chain = [planned for planned in asked if not planned.stage.startswith("score.")]
        scores = asked[len(chain) :]
        try:
            for planned in chain:
                reports[planned.stage] = await self.stage(planned)
            for planned, report in zip(scores, await asyncio.gather(*map(self.stage, scores)), strict=True):
                reports[planned.stage] = report
        except CaddieError as error:
            return SeedResult(seed=plan[0].seed, plan=plan, reports=reports, error=str(error))
        fault(Point.ANSWERED)
        return SeedResult(seed=plan[0].seed, plan=plan, reports=reports)

    async def take(self, plans: Sequence[Sequence[Plan]]) -> int:
        """Begin trials, in their order and as many as there is room for; a ticket for :meth:`answer`."""
        shape = plans[0][0][0].gang
        room = asyncio.Semaphore(max(IN_FLIGHT, 2 * places_for(shape)))

        async def one(plan: Plan) -> SeedResult:
            async with room:
                return await self.seed(plan)

        self.trials.append([[asyncio.create_task(one(plan)) for plan in seeds] for seeds in plans])
        return len(self.trials) - 1

    async def answer(self, ticket: int, trial: int, place: int) -> Answer:
        """What became of a trial's seed, by its place; waits for it."""
        seeds = self.trials[ticket][trial]
        result = await asyncio.shield(seeds[place])
        val_bpb = math.nan if result.error else result.metric(result.plan[-1].stage, "val_bpb")
        return Answer(seed=result.seed, val_bpb=val_bpb, error=result.error, last=place == len(seeds) - 1)

    async def stage(self, planned: PlannedStage) -> StageReport:
        """The report of one stage; those who ask while it runs wait for the same run."""
        if planned.key not in self.flights:
            self.flights[planned.key] = asyncio.create_task(
                computed_once(self.store, planned.key, lambda: self._try(planned))
            )
        return await asyncio.shield(self.flights[planned.key])

    async def account(self) -> Ledger | None:
        """The budget, as far as it is spent."""
        return self.purse.ledger

    async def close(self) -> None:
        """End every gang; returns when their processes are gone."""
        seeds = [seed for trials in self.trials for trial in trials for seed in trial]
        for task in (*seeds, *self.flights.values()):
            task.cancel()
        await asyncio.gather(*seeds, *self.flights.values(), return_exceptions=True)
        for pool in self.pools.values():
            pool.close()

    async def _try(self, planned: PlannedStage) -> StageReport:
        if planned.stands_for:
            why = f"{planned.key}, which was to be reused, isn't there any more"
            raise StageFailed(planned.stage, planned.seed, FailureKind.OPERATOR, why)
        in_company, failures = bool(planned.together), Counter[FailureKind]()
        while True:
            await self.purse.reserve(planned)
            try:
                outcome = await (self._in_company if in_company else self._alone)(planned)
            finally:
                self.purse.release(planned)
            in_company = False
            if outcome is None:
                continue
            if outcome.report is not None:
                return outcome.report
            assert outcome.kind is not None
            # An actor may die after it has published and before it could say so.
            report = await ask(self.store, self.store.find, planned.key)
            if report is not None:
                return report
            failures[outcome.kind] += 1
            if failures[outcome.kind] > RETRIES.get(outcome.kind, 0):
                raise StageFailed(planned.stage, planned.seed, outcome.kind, outcome.why)

    async def _alone(self, planned: PlannedStage) -> Outcome | None:
        return (await self._run(planned, lambda: [planned]))[0]

    async def _in_company(self, planned: PlannedStage) -> Outcome | None:
        """Run with all that go together and ask before the gang starts; None where it failed in company, so that
        each shows by itself whose fault it was."""
        waiting = Waiting(planned, asyncio.get_running_loop().create_future())
        group = self.gathering.setdefault(planned.together, [])
        group.append(waiting)
        if len(group) > 1:
            return await waiting.answer  # the first one runs us all

        def everyone() -> list[PlannedStage]:
            del self.gathering[planned.together]
            return [one.planned for one in group]

        outcomes: list[Outcome] = []
        try:
            outcomes = await self._run(planned, everyone)
        finally:
            if self.gathering.get(planned.together) is group:
                del self.gathering[planned.together]
            for i, one in enumerate(group):
                answer = outcomes[i] if outcomes else None
                if not one.answer.done():
                    one.answer.set_result(answer if len(group) == 1 or (answer and answer.report) else None)
        return await waiting.answer

    async def _run(self, planned: PlannedStage, choose: Callable[[], list[PlannedStage]]) -> list[Outcome]:
        pool = self.pools.setdefault(planned.gang, GangPool(planned.gang, self.at, self.checks))
        group: list[PlannedStage] = []

        def chosen() -> list[PlannedStage]:
            group.extend(choose())
            return group

        outcomes = await pool.run(planned, chosen, priority=list(Stage).index(planned.stage))
        self.purse.settle(group, outcomes[0].gang_s)
        return outcomes
