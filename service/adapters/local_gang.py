"""A stage in a gang of this machine, without Ray: for what needs one CPU and seconds, as an audit does."""

from __future__ import annotations

import asyncio

from model.report import StageReport
from service.adapters.attempt import run_attempt
from service.adapters.flight import computed_once
from service.adapters.store_fs import FolderStore
from service.errors import FailureKind, StageFailed
from service.stages import PlannedStage


def run_here(planned: PlannedStage, store: FolderStore) -> StageReport:
    """The report of a stage, from the store or computed now; waits while another process computes it.

    Raises:
        StageFailed: it ended without a valid report.
    """
    return store.find(planned.key) or asyncio.run(computed_once(store, planned.key, lambda: _compute(planned, store)))


async def _compute(planned: PlannedStage, store: FolderStore) -> StageReport:
    outcome = await run_attempt(planned, store)
    if outcome.report is None:
        raise StageFailed(planned.stage, planned.seed, outcome.kind or FailureKind.BUG, outcome.why)
    return outcome.report
