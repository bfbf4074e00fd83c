"""A gang on Ray: an actor that holds a node's share and runs stages in it, one after another.

A gang is hired in a placement group of its own, all ranks on one node, all or nothing, and stays for a moment when its
stage is over: starting an actor costs a second, and a seed's next stage usually comes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.adapters.attempt import Outcome, run_attempts
from service.adapters.ray_cluster import places_for, wanted_by
from service.adapters.stores import StoreAt, open_store
from service.adapters.turns import Turns
from service.errors import FailureKind
from service.spec import GangShape
from service.stages import PlannedStage

LINGER_S = 3.0
"""How long a gang without work is kept before its resources go back to the cluster."""


@ray.remote(max_restarts=0)
class GangActor:
    """Holds a node's share for one gang and runs stages in it."""

    async def run(self, group: Sequence[PlannedStage], at: StoreAt) -> list[Outcome]:
        """Run a stage, or several that go together, in this node's share."""
        return await run_attempts(group, open_store(at.from_here()))


@dataclass(frozen=True, slots=True, eq=False)
class Hired:
    """A live gang actor and the placement group it sits in."""

    group: PlacementGroup
    actor: Any

    def dismiss(self) -> None:
        """Give the resources back; whatever the gang runs dies with it."""
        ray.kill(self.actor)
        remove_placement_group(self.group)


class GangPool:
    """All gangs of one shape: no more at once than the cluster holds, idle ones are used again."""

    def __init__(self, shape: GangShape, at: StoreAt) -> None:
        self.shape, self.at = shape, at
        self.turns = Turns(lambda: places_for(shape))
        self.idle: list[Hired] = []

    async def run(self, choose: Callable[[], Sequence[PlannedStage]], priority: int) -> list[Outcome]:
        """Run in one gang what ``choose`` answers when it is its turn: a stage, or several that go together."""
        async with self.turns.turn(priority):
            hired = self.idle.pop() if self.idle else await self._hire()
            group = choose()
            outcomes: list[Outcome] = []
            asked = time.monotonic()
            try:
                outcomes = await self._ask(hired, group)
            finally:
                if not outcomes or any(outcome.report is None for outcome in outcomes):
                    hired.dismiss()
                else:
                    self.idle.append(hired)
                    asyncio.get_running_loop().call_later(LINGER_S, self._expire, hired)
        return [replace(outcome, gang_s=time.monotonic() - asked) for outcome in outcomes]

    def close(self) -> None:
        """Dismiss the idle gangs; busy ones are dismissed by the cancelling of their stage."""
        for hired in self.idle:
            hired.dismiss()
        self.idle.clear()

    async def _hire(self) -> Hired:
        bundle = wanted_by(self.shape)
        # One bundle and not one per rank: the actor must own all GPUs of the gang to hand them to torchrun.
        group = placement_group([bundle], strategy="STRICT_PACK")
        try:
            await group.ready()
        except BaseException:
            remove_placement_group(group)
            raise
        actor = GangActor.options(  # type: ignore[attr-defined]
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        ).remote()
        return Hired(group, actor)

    async def _ask(self, hired: Hired, group: Sequence[PlannedStage]) -> list[Outcome]:
        running = hired.actor.run.remote(group, self.at)
        try:
            outcomes: list[Outcome] = await running
            return outcomes
        except asyncio.CancelledError:
            ray.cancel(running)  # its `finally` ends the processes; dismissing it at once would leave that to the leash
            with contextlib.suppress(Exception):
                await asyncio.wait_for(running, 10)
            raise
        except ray.exceptions.RayActorError as error:
            failed = Outcome(kind=FailureKind.INFRASTRUCTURE, why=f"the gang's actor died: {error}")
        except ray.exceptions.RayTaskError as error:
            cause = error.as_instanceof_cause()
            failed = Outcome(kind=FailureKind.OPERATOR, why=str(cause).strip().splitlines()[-1])
        return [failed for _ in group]

    def _expire(self, hired: Hired) -> None:
        if hired in self.idle:
            self.idle.remove(hired)
            hired.dismiss()
