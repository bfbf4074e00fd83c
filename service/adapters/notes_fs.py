"""Notes of experiments as files: ``experiments/<name>-<id>.json`` below the home folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from model.report import write_json
from service.adapters.locks import file_lock
from service.errors import StoreError
from service.notes import ExperimentNote, from_json, to_json


class NoteFolder:
    """Notes below ``home``; any number of processes may share it."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "experiments"

    def write(self, note: ExperimentNote) -> ExperimentNote:
        """Keep ``note``, whole or not at all; the version that began it and a chosen baseline stay as they were.

        Raises:
            StoreError: the disk refuses.
        """
        path = self._path(note)
        before = self._read(path) if path.is_file() else None
        if before is not None:
            note = replace(
                note,
                git_sha=before.git_sha,
                git_dirty=before.git_dirty,
                baseline=note.baseline or before.baseline,
            )
        with _refusals(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, to_json(note))
        return note

    @contextlib.contextmanager
    def hold(self, note: ExperimentNote) -> Iterator[None]:
        """Write ``note`` and mark its experiment as being run; the kernel takes the mark away on any kind of end."""
        self.write(note)
        with _refusals(self._mark(note)):
            handle = os.open(self._mark(note), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Shared: two drivers of one experiment share its stages, and it is alive while either is.
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Be the only one who brings a view up to date: two who don't find a run would both create it."""
        path = self.folder / ".view"
        with _refusals(path), contextlib.ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(path, wait=True))
            release = stack.pop_all()
        with release:
            yield

    def alive(self, note: ExperimentNote) -> bool:
        """Whether a driver runs the experiment now."""
        try:
            handle = os.open(self._mark(note), os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def read(self) -> tuple[list[ExperimentNote], list[str]]:
        """Every note, begun first first, and a line about each file that isn't one."""
        notes, strange = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                notes.append(from_json(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, StoreError) as error:
                strange.append(f"{path}: {error}")
        return sorted(notes, key=lambda note: (note.started_s, note.id)), strange

    def _read(self, path: Path) -> ExperimentNote | None:
        """The note in ``path``; one that can't be read is about to be replaced by a good one."""
        try:
            return from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, StoreError):
            return None

    def _path(self, note: ExperimentNote) -> Path:
        return self.folder / f"{note.name}-{note.id}.json"

    def _mark(self, note: ExperimentNote) -> Path:
        return self.folder / f".{note.name}-{note.id}.running"


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error} - CADDIE_HOME sets another folder") from error
