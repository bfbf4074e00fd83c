"""A gang on Ray: an actor that holds a node's share and runs stages in it, one after another.

A gang is hired in a placement group of its own, all ranks on one node, all or nothing, and stays for a moment when its
stage is over: starting an actor costs a second, and a seed's next stage usually comes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.adapters.attempt import Outcome, run_attempts
from service.adapters.nodes_fs import NodeFolder
from service.adapters.preflight import Fitness, preflight
from service.adapters.ray_cluster import places_for, wanted_by
from service.adapters.stores import StoreAt, open_store
from service.adapters.turns import Turns
from service.errors import ClusterError, FailureKind
from service.faults import Point, fault
from service.nodes import STRIKES, Checks, checked_lately, too_slow
from service.spec import GangShape
from service.stages import PlannedStage

LINGER_S = 3.0
"""How long a gang without work is kept before its resources go back to the cluster."""
AGAIN_S = 1.0
"""How often an actor that doesn't answer is asked again: silence is no failure."""


@ray.remote(max_restarts=0)
class GangActor:
    """Holds a node's share for one gang and runs stages in it."""

    def __init__(self) -> None:
        self.asked: dict[str, asyncio.Task[list[Outcome]]] = {}

    async def run(self, token: str, group: Sequence[PlannedStage], at: StoreAt) -> list[Outcome]:
        """Run a stage, or several that go together, in this node's share. Who asks again with the same ``token``, as
        after a break of the network, gets the same run's answer."""
        if token not in self.asked:
            self.asked = {token: asyncio.create_task(run_attempts(group, open_store(at.from_here())))}
        try:
            return await asyncio.shield(self.asked[token])
        except asyncio.CancelledError:
            self.asked[token].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.asked[token]
            raise

    async def preflight(self, planned: PlannedStage, node: str, at: StoreAt) -> Fitness:
        """Is this node fit for ``planned``?"""
        return await preflight(planned, node, open_store(at.from_here()))


@dataclass(frozen=True, slots=True, eq=False)
class Hired:
    """A live gang actor and the placement group it sits in."""

    group: PlacementGroup
    actor: Any
    node: str
    """The node's name."""

    def dismiss(self) -> None:
        """Give the resources back; whatever the gang runs dies with it."""
        ray.kill(self.actor)
        remove_placement_group(self.group)


class GangPool:
    """All gangs of one shape: no more at once than the cluster holds, idle ones are used again."""

    def __init__(self, shape: GangShape, at: StoreAt, checks: Checks = Checks.AUTO) -> None:
        self.shape, self.at, self.nodes = shape, at, NodeFolder(at.from_here().home)
        self.checks = checks is Checks.ALWAYS or (checks is Checks.AUTO and shape.device == "cuda")
        self.turns = Turns(lambda: places_for(shape, self.nodes.apart()))
        self.idle: list[Hired] = []
        self.strikes: Counter[str] = Counter()
        """Against each node, in this run."""

    async def run(
        self, planned: PlannedStage, choose: Callable[[], Sequence[PlannedStage]], priority: int
    ) -> list[Outcome]:
        """Run in one gang what ``choose`` answers when it is its turn: ``planned``, or several that go together."""
        async with self.turns.turn(priority):
            try:
                hired = self.idle.pop() if self.idle else await self._hire_fit(planned)
            except ClusterError as error:
                return [Outcome(kind=FailureKind.OPERATOR, why=str(error)) for _ in choose()]
            fault(Point.HIRED)
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
        self._blame(hired.node, outcomes)
        return [replace(outcome, gang_s=time.monotonic() - asked) for outcome in outcomes]

    def close(self) -> None:
        """Dismiss the idle gangs; busy ones are dismissed by the cancelling of their stage."""
        for hired in self.idle:
            hired.dismiss()
        self.idle.clear()

    async def _hire_fit(self, planned: PlannedStage) -> Hired:
        """A gang on a node that has passed its preflight; nodes that don't are set apart.

        Raises:
            ClusterError: no node is left; the message has each with its reason.
        """
        while True:
            hired = await self._hire()
            if not self.checks or checked_lately(hired.node, self.shape.device, self.nodes.speeds(), time.time()):
                return hired
            try:
                fitness: Fitness = await hired.actor.preflight.remote(planned, hired.node, self.at)
            except ray.exceptions.RayActorError:  # the node is gone: nothing is said about it
                hired.dismiss()
                continue
            except BaseException:
                hired.dismiss()
                raise
            unfit = fitness.unfit
            if fitness.speed is not None:
                unfit = too_slow(fitness.speed, self.nodes.speeds(), self.shape.device)
            if fitness.speed is not None and not unfit:
                self.nodes.note(fitness.speed)  # a slow one would be no measure for others
                return hired
            self.nodes.set_apart(hired.node, unfit)
            hired.dismiss()

    async def _hire(self) -> Hired:
        apart = self.nodes.apart()
        if places_for(self.shape, apart) < 1 <= places_for(self.shape):
            reasons = "\n  ".join(f"{one.node}: {one.why}" for one in apart.values())
            raise ClusterError(
                "every node that could hold the gang is set apart; `caddie nodes --release NODE` takes one back:"
                f"\n  {reasons}"
            )
        bundle = wanted_by(self.shape)
        ids = [node["NodeID"] for node in ray.nodes() if node["NodeName"] in apart]
        # One bundle and not one per rank: the actor must own all GPUs of the gang to hand them to torchrun.
        group = placement_group(
            [bundle],
            strategy="STRICT_PACK",
            bundle_label_selector=[{"ray.io/node-id": f"!in({','.join(ids)})"}] if ids else None,
        )
        try:
            await group.ready()
        except BaseException:
            remove_placement_group(group)
            raise
        actor = GangActor.options(  # type: ignore[attr-defined]
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            max_concurrency=4,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        ).remote()
        node_id = placement_group_table(group)["bundles_to_node_id"][0]
        return Hired(group, actor, name_of(node_id))

    async def _ask(self, hired: Hired, group: Sequence[PlannedStage]) -> list[Outcome]:
        token = uuid.uuid4().hex
        while True:
            running = hired.actor.run.remote(token, group, self.at)
            try:
                outcomes: list[Outcome] = await running
                return outcomes
            except asyncio.CancelledError:
                # Its `finally` ends the processes; dismissing it at once would leave that to the leash.
                ray.cancel(running)
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(running, 10)
                raise
            except ray.exceptions.ActorUnavailableError:
                await asyncio.sleep(AGAIN_S)
            except ray.exceptions.RayActorError as error:
                failed = lost(hired.node, error)
                return [failed for _ in group]
            except ray.exceptions.RayTaskError as error:
                why = str(error.as_instanceof_cause()).strip().splitlines()[-1]
                return [Outcome(kind=FailureKind.OPERATOR, why=why) for _ in group]

    def _blame(self, node: str, outcomes: Sequence[Outcome]) -> None:
        """Set ``node`` apart when enough speaks against it."""
        worst = max(outcomes, key=lambda outcome: outcome.strikes)
        self.strikes[node] += worst.strikes
        if worst.strikes and self.strikes[node] >= STRIKES:
            self.nodes.set_apart(node, worst.why)

    def _expire(self, hired: Hired) -> None:
        if hired in self.idle:
            self.idle.remove(hired)
            hired.dismiss()


def name_of(node_id: str) -> str:
    """A node's name, by which it is known after it has left and come back; its id when it is gone already."""
    return next((str(node["NodeName"]) for node in ray.nodes() if node["NodeID"] == node_id), node_id)


def lost(node: str, error: ray.exceptions.RayActorError) -> Outcome:
    """An actor that died: with its node, which says nothing about the stage, or alone."""
    first = str(error).strip().splitlines()[0]
    if ("node" in first and "died" in first) or node not in {one["NodeName"] for one in ray.nodes() if one["Alive"]}:
        return Outcome(kind=FailureKind.PREEMPTED, why=f"node {node} went away: {first}")
    return Outcome(kind=FailureKind.INFRASTRUCTURE, why=f"the gang's actor on node {node} died: {first}")
