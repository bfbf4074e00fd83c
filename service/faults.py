"""Named places where a run may be struck, so that tests can strike it there. Nothing happens unless one is armed.

Each point lies at a change of state: before or after something becomes true on disk, in the broker, or in MLflow. A
test writes a list of strikes to a file and names it in CADDIE_FAULTS, which only this module reads. Hits are counted
over all processes and all reruns by files beside that list, so each strike happens once. docs/reliability.md says what
came of them.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from enum import StrEnum
from pathlib import Path

PLAN = "CADDIE_FAULTS"
"""The variable that names the list of strikes: ``[{"point": "published", "hit": 2, "do": "kill"}]``."""


class Point(StrEnum):
    """Where; in the order in which a run comes by."""

    CORPUS_TOKENIZER = "corpus.tokenizer"
    CORPUS_SHARD = "corpus.shard"
    CORPUS_READY = "corpus.ready"
    NOTED = "noted"
    """An experiment's note is on disk, nothing runs yet."""
    TRIAL = "trial"
    """A trial of the search library begins."""
    LOCKED = "locked"
    """The broker holds a key's lock and found nothing in the store."""
    HIRED = "hired"
    """A gang's actor sits in its placement group."""
    BEGUN = "begun"
    """An attempt has its folder."""
    TOLD = "told"
    """Its job.json is written."""
    STARTED = "started"
    """torchrun is running."""
    ENDED = "ended"
    """torchrun has ended; nothing is published."""
    COMPLETE = "complete"
    """Outputs, log and key.json lie in the attempt, before the rename that publishes them."""
    PUBLISHED = "published"
    """The entry is in the store; nobody has been told."""
    ANSWERED = "answered"
    """The broker has a seed's answer."""
    REPORTED = "reported"
    """A trial has told the search library of a seed."""
    RESULTS = "results"
    """The driver has all results; its note doesn't say so yet."""
    VIEWED = "viewed"
    """The note is written; MLflow isn't."""
    RUN_CREATED = "mlflow.run"
    """A run exists in MLflow, without its numbers."""
    RUN_WRITTEN = "mlflow.written"
    """It has numbers, but not its final state."""
    RUN_CHANGED = "mlflow.changed"
    """A run that was there has new numbers or tags, but not its new state."""
    AUDITED = "audited"
    RECORD_WRITTEN = "record.written"
    """A record's files are written, before the rename."""
    RECORD_DONE = "record.done"


DEEDS = ("kill", "full", "error", "hang", "none")
"""SIGKILL of this process; a disk that is full; an error nobody expects; no progress any more; only counted."""


def fault(point: Point) -> None:
    """Come by ``point``.

    Raises:
        OSError: a strike says that the disk is full.
        RuntimeError: a strike says that something nobody expects goes wrong.
        ValueError: the list of strikes holds something else.
    """
    plan = os.environ.get(PLAN)
    if plan:
        _come_by(point, Path(plan))


def _come_by(point: Point, plan: Path) -> None:
    hit = _hit(point, plan)
    for strike in json.loads(plan.read_text(encoding="utf-8")):
        if strike["point"] == point and strike["hit"] == hit:
            (_hits(plan) / f"{point}.{hit}.struck").touch()
            _strike(strike["do"], point)


def _hit(point: Point, plan: Path) -> int:
    """Which time this is, over all processes: whoever creates the file of a number has that number."""
    folder = _hits(plan)
    folder.mkdir(exist_ok=True)
    number = 1
    while True:
        try:
            os.close(os.open(folder / f"{point}.{number}", os.O_CREAT | os.O_EXCL))
            return number
        except FileExistsError:
            number += 1


def _hits(plan: Path) -> Path:
    return plan.with_suffix(".hits")


def _strike(deed: str, point: Point) -> None:
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # another thread may be the one that notices
    if deed == "full":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (struck at {point})")
    if deed == "error":
        raise RuntimeError(f"struck at {point}")
    if deed == "hang":
        time.sleep(3600)
    if deed not in DEEDS:
        raise ValueError(f"{PLAN}: {deed!r} is none of {', '.join(DEEDS)}")
