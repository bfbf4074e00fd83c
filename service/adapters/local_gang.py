"""A stage in a gang of this machine, without Ray: for what needs one CPU and seconds, as an audit does."""

from __future__ import annotations

import asyncio
import contextlib

from model.report import StageReport
from service.adapters.attempt import run_attempt
from service.adapters.flight import LockLost, ask, held
from service.adapters.store_fs import FolderStore
from service.errors import FailureKind, StageFailed
from service.stages import PlannedStage


def run_here(planned: PlannedStage, store: FolderStore) -> StageReport:
    """The report of a stage, from the store or computed now; waits while another process computes it.

    Raises:
        StageFailed: it ended without a valid report.
    """
    return store.find(planned.key) or asyncio.run(_compute(planned, store))


async def _compute(planned: PlannedStage, store: FolderStore) -> StageReport:
    while True:
        with contextlib.suppress(LockLost):
            async with held(store, planned.key) as ours:
                # Looked up under the lock: another process may have finished it while we waited.
                report = await ask(store, store.find, planned.key)
                if report is not None:
                    return report
                if ours:
                    outcome = await run_attempt(planned, store)
                    if outcome.report is None:
                        kind = outcome.kind or FailureKind.BUG
                        raise StageFailed(planned.stage, planned.seed, kind, outcome.why)
                    return outcome.report
        await asyncio.sleep(store.look_again_s)
