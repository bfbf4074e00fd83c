"""The stage store in a folder: ``stages/<key>/`` for what is finished, ``attempts/<key>/<n>/`` for every try.

A stage is published by one rename, so it is there whole or not at all. It is sealed (:mod:`service.adapters.seals`); a
damaged entry is set aside and computed again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from model.data.shards import Corpus
from model.job import LOG
from model.report import StageReport, read_report, write_json
from model.stages import Stage
from service.adapters.locks import file_lock
from service.adapters.seals import SEALED, Marks, marks, settled, verify, write_seal
from service.errors import StoreError
from service.faults import Point, fault
from service.history import MADE_OF, Finished, finished_of
from service.stages import key_prefix

_log = logging.getLogger(__name__)

JOB = "job.json"
"""What a try's ranks are told to do, beside their log."""


class FolderStore:
    """A store below ``home``; any number of processes may share it."""

    slow = False
    """Whether it asks a network, so that an event loop asks it in a thread."""
    look_again_s = 0.5
    """How often to look whether another has finished the stage we both want."""

    def __init__(self, home: Path) -> None:
        self.stages, self.attempted, self.locks = home / "stages", home / "attempts", home / "locks"
        self.damaged = home / "damaged"
        self._gangs: dict[Path, Path] = {}
        self._verified: dict[str, tuple[Marks, StageReport]] = {}
        with refusals(home):
            for folder in (self.stages, self.attempted, self.locks):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.locks / f".probe.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()

    def find(self, key: str) -> StageReport | None:
        """The report of a finished stage whose files are all as they were written.

        What this process has verified isn't verified again while no file of it is touched.
        """
        folder = self.stages / key
        now = marks(folder)
        if now is None:
            return None
        before, report = self._verified.get(key, (None, None))
        if before == now and report is not None:
            return report
        try:
            report = verify(folder)
        except ValueError as error:
            self._set_aside(key, str(error))
            return None
        if settled(now):
            self._verified[key] = now, report
        return report

    def folder(self, key: str) -> Path:
        """Where a finished stage's outputs lie."""
        return self.stages / key

    def brought(self, key: str) -> Path:
        """Where the outputs of a finished stage lie on this node, for a gang to read."""
        return self.folder(key)

    def share(self, corpus: Corpus) -> None:
        """Let every node have a prepared corpus: here they share the folder it lies in."""

    def corpus_here(self, folder: str, digest: str) -> str:
        """Where this node has the corpus that the driver has in ``folder``."""
        return folder

    def peek(self, key: str) -> StageReport | None:
        """The report of a finished stage as it lies there: unverified, and nothing is set aside."""
        try:
            return read_report(self.stages / key)
        except ValueError:
            return None

    def log(self, key: str) -> str:
        """What a finished stage printed."""
        return (self.stages / key / LOG).read_text(encoding="utf-8", errors="replace")

    def begin(self, key: str) -> Path:
        """A fresh folder for one try of a stage, numbered from 1."""
        with refusals(self.attempted):
            (self.attempted / key).mkdir(exist_ok=True)
            folder = self._try(key, self.attempts(key) + 1)
            folder.mkdir()
        return folder

    def scratch(self, what: str) -> Path:
        """A fresh folder on this node for something that is no stage."""
        folder = self.stages.parent / what
        with refusals(folder):
            folder.mkdir(exist_ok=True)
            return Path(tempfile.mkdtemp(dir=folder))

    def attempts(self, key: str) -> int:
        """Number of the newest try; 0 when there is none here, as for an entry that was copied from another store."""
        return max((int(folder.name) for folder in self.tries(key)), default=0)

    def tries(self, key: str) -> list[Path]:
        """Folder of every try, the oldest first."""
        try:
            found = [path for path in (self.attempted / key).iterdir() if path.name.isdecimal()]
        except OSError:
            return []
        return sorted(found, key=lambda path: int(path.name))

    def gang_of(self, attempt: Path) -> Path:
        """The try whose gang did the work of ``attempt``: itself, or that of the stage with which it went together.

        Only the stage that was first among those that go together has a job, and it names the others.
        """
        if (attempt / JOB).exists():
            return attempt
        if attempt in self._gangs:
            return self._gangs[attempt]
        kind, end = attempt.parent.name.rpartition("-")[0], f"/{attempt.parent.name}/{attempt.name}/out"
        for job in sorted(self.attempted.glob(f"{kind}-*/*/{JOB}")):
            with contextlib.suppress(OSError, ValueError):
                alongside = json.loads(job.read_text(encoding="utf-8")).get("alongside", {})
                if any(folder.endswith(end) for folder in alongside):
                    self._gangs[attempt] = job.parent
                    return job.parent
        return attempt

    def published(self) -> set[str]:
        """What is finished, unverified."""
        with refusals(self.stages):
            return set(os.listdir(self.stages))

    def made_of(self, key: str) -> Finished | None:
        """What a finished stage tells of itself, unverified; None when there is none that can be read."""
        folder = self.stages / key
        try:
            data = json.loads((folder / MADE_OF).read_text(encoding="utf-8")) if (folder / MADE_OF).exists() else None
            return finished_of(key, read_report(folder), data)
        except (OSError, ValueError):
            return None

    def newest(self, stage: Stage, count: int) -> list[Finished]:
        """The ``count`` newest finished stages of a kind, the newest first."""
        begin = key_prefix(stage)
        with refusals(self.stages), os.scandir(self.stages) as entries:
            found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if entry.name.startswith(begin)]
        return [one for _, key in sorted(found, reverse=True)[:count] if (one := self.made_of(key)) is not None]

    def set_aside(self) -> dict[str, Path]:
        """Damaged entries by key, each where it was put last."""
        with refusals(self.damaged):
            return {path.name.rpartition(".")[0]: path for path in sorted(self.damaged.glob("*.*"))}

    def publish(self, key: str, attempt: Path, made_of: Mapping[str, Any] | None = None) -> StageReport:
        """Make the outputs in ``attempt/out`` the result of ``key``, with what the key was made of beside them.

        Raises:
            ValueError: there is no valid report.
            StoreError: the disk refuses.
        """
        out = attempt / "out"
        report = read_report(out)
        with refusals(self.stages):
            there = self.find(key)
            if there is not None:
                return there
            (out / LOG).write_bytes((attempt / LOG).read_bytes())
            if made_of is not None:
                write_json(out / MADE_OF, {**made_of, SEALED: True})
            write_seal(out)
            fault(Point.COMPLETE)
            os.rename(out, self.stages / key)
            fault(Point.PUBLISHED)
        return report

    def running(self) -> dict[str, Path]:
        """Log of the newest try of every stage that somebody computes now."""
        logs: dict[str, Path] = {}
        for folder in self.attempted.iterdir():
            key = folder.name
            if not (self.stages / key).exists() and self._is_locked(key):
                logs[key] = self._try(key, self.attempts(key)) / LOG
        return logs

    @contextlib.contextmanager
    def lock(self, key: str, on_loss: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Try to be the only one who computes ``key``; False when somebody else is. Freed on any end of the holder, and
        never lost while it lives, so that ``on_loss`` isn't called here."""
        with contextlib.ExitStack() as stack:
            with refusals(self.locks):
                ours = stack.enter_context(file_lock(self.locks / key, wait=False))
            yield ours

    def _try(self, key: str, number: int) -> Path:
        return self.attempted / key / str(number)

    def _is_locked(self, key: str) -> bool:
        with self.lock(key) as free:
            return not free

    def _set_aside(self, key: str, why: str) -> None:
        target = self.damaged / f"{key}.{time.time_ns()}"
        _log.warning("stage %s is damaged (%s): set aside as %s, it will be computed again", key, why, target)
        with refusals(self.damaged), contextlib.suppress(FileNotFoundError):
            self.damaged.mkdir(exist_ok=True)
            os.rename(self.stages / key, target)


@contextlib.contextmanager
def refusals(place: Path) -> Iterator[None]:
    """The disk's refusals as StoreError, with the way out."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = "free some space and run the same command again" if full else "CADDIE_HOME sets another folder"
        raise StoreError(f"{place}: {error.strerror or error} - {way_out}") from error
