"""A gang on Ray: an actor that holds a node's share and runs stages in it, one after another.

A gang is hired in a placement group of its own, all ranks on one node, all or nothing, and stays for a moment when its
stage is over: starting an actor costs a second, and a seed's next stage usually comes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from model.codec import TAG
from model.report import StageReport, write_json
from service.adapters.ray_cluster import places_for, wanted_by
from service.adapters.store_fs import LOG, FolderStore
from service.adapters.torchrun import run_gang, torchrun_command
from service.adapters.turns import Turns
from service.errors import FailureKind
from service.source import source_digest
from service.spec import GangShape
from service.stages import PlannedStage

LINGER_S = 3.0
"""How long a gang without work is kept before its resources go back to the cluster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a stage ended: a report, or why there is none."""

    report: StageReport | None = None
    kind: FailureKind | None = None
    why: str = ""


@ray.remote(max_restarts=0)
class GangActor:
    """Holds a node's share for one gang and runs one stage in it."""

    async def run(self, planned: PlannedStage, home: str) -> Outcome:
        """Run the stage; its result is decided by a valid report, not by an exit code."""
        store = FolderStore(Path(home))
        source = source_digest(planned.modules)[:16]
        if source != planned.parts["source"]:
            why = f"this node's model/ is another version ({source}) than the driver's ({planned.parts['source']})"
            return Outcome(kind=FailureKind.OPERATOR, why=why)
        attempt = store.begin(planned.key)
        write_json(attempt / "job.json", job_json(planned, store))
        command = torchrun_command(planned.stage, planned.gang.ranks, attempt / "job.json", attempt / "out")
        ended = await run_gang(command, planned.gang.threads, attempt / LOG, planned.deadline_s)
        try:
            return Outcome(report=store.publish(planned.key, attempt))
        except ValueError as error:
            if ended.timed_out:
                why = f"not finished after {planned.deadline_s:.0f} s (log: {attempt / LOG})"
                return Outcome(kind=FailureKind.CAP, why=why)
            return failure_of(attempt, ended.exit_code, str(error))


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

    def __init__(self, shape: GangShape, home: Path) -> None:
        self.shape, self.home = shape, home
        self.turns = Turns(lambda: places_for(shape))
        self.idle: list[Hired] = []

    async def run(self, planned: PlannedStage, priority: int) -> Outcome:
        """Run one stage in one gang, once; waits for its turn."""
        async with self.turns.turn(priority):
            hired = self.idle.pop() if self.idle else await self._hire()
            outcome = None
            try:
                outcome = await self._ask(hired, planned)
            finally:
                if outcome is None or outcome.report is None:
                    hired.dismiss()
                else:
                    self.idle.append(hired)
                    asyncio.get_running_loop().call_later(LINGER_S, self._expire, hired)
        return outcome

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

    async def _ask(self, hired: Hired, planned: PlannedStage) -> Outcome:
        running = hired.actor.run.remote(planned, str(self.home))
        try:
            outcome: Outcome = await running
            return outcome
        except asyncio.CancelledError:
            ray.cancel(running)  # its `finally` ends the processes; dismissing it at once would leave that to the leash
            with contextlib.suppress(Exception):
                await asyncio.wait_for(running, 10)
            raise
        except ray.exceptions.RayActorError as error:
            return Outcome(kind=FailureKind.INFRASTRUCTURE, why=f"the gang's actor died: {error}")
        except ray.exceptions.RayTaskError as error:
            cause = error.as_instanceof_cause()
            return Outcome(kind=FailureKind.OPERATOR, why=str(cause).strip().splitlines()[-1])

    def _expire(self, hired: Hired) -> None:
        if hired in self.idle:
            self.idle.remove(hired)
            hired.dismiss()


def job_json(planned: PlannedStage, store: FolderStore) -> dict[str, Any]:
    """The job that the ranks read, as :class:`model.job.Job` encodes."""
    return {
        TAG: "model.job:Job",
        "config": planned.config,
        "seed": planned.seed,
        "corpus": planned.corpus,
        "corpus_digest": planned.corpus_digest,
        "stage": str(planned.stage),
        "inputs": {stage: str(store.folder(key)) for stage, key in planned.inputs.items()},
        "device": planned.gang.device,
        "threads": planned.gang.threads,
    }


def failure_of(attempt: Path, exit_code: int, missing: str) -> Outcome:
    """What a try without a report died of: the first rank's own words, else how torchrun ended."""
    for path in sorted((attempt / "out").glob("failure.*.json")):
        failure = json.loads(path.read_text(encoding="utf-8"))
        why = f"rank {failure['rank']}: {failure['error']} (log: {attempt / LOG})"
        return Outcome(kind=FailureKind.BUG, why=why)
    if exit_code == 0:
        return Outcome(kind=FailureKind.BUG, why=missing)
    return Outcome(kind=FailureKind.INFRASTRUCTURE, why=f"torchrun ended with {exit_code} (log: {attempt / LOG})")
