"""Several SLOT configurations on one forward: what a sweep over its knobs runs, each result the same as alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.gang import Gang
from model.job import LOG, Job
from model.score.slot import score_together
from model.score.stage import close_scoring, load_scoring


def score_slots(jobs: Sequence[Job], outs: Sequence[Path], gang: Gang) -> list[dict[str, float]]:
    """The ``score.slot`` stages of ``jobs``, which differ in ``score.slot`` only, into ``outs``; their metrics.

    All but the first write their log beside ``out``. ``eval_s`` is the time for all together, and so never less than
    one alone would take.
    """
    gangs = [gang, *(replace(gang, transcript=out.parent / LOG) for out in outs[1:])]
    scoring = load_scoring(jobs[0], gang)
    tallies = [scoring.tally(member) for member in gangs]
    slots = [job.config.score.slot for job in jobs]
    started = time.perf_counter()
    score_together(slots, scoring.net, scoring.stream, jobs[0].config.score.windows, tallies, gang)
    return [
        close_scoring(job, out, member, tally, started)
        for job, out, member, tally in zip(jobs, outs, gangs, tallies, strict=True)
    ]
