"""Notes of experiments beside a remote store: ``experiments/<name>-<id>.json`` there, copies at home.

A driver that runs renews a mark in ``alive/``; whether one is fresh is judged by the server's clock alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from service.adapters.leases import RENEW_S, Leases
from service.adapters.notes_fs import NoteFolder
from service.adapters.remote import Remote
from service.notes import ExperimentNote

FOLDER, ALIVE = "experiments", "alive"
ALIVE_S = 4 * RENEW_S
"""How old the newest mark of an experiment that is being run may be."""


class RemoteNotes(NoteFolder):
    """Notes at a URL; ``home`` holds this machine's copies."""

    def __init__(self, home: Path, remote: Remote) -> None:
        super().__init__(home)
        self.remote, self.marks = remote, Leases(remote, folder=ALIVE)

    def write(self, note: ExperimentNote) -> ExperimentNote:
        """Keep ``note`` here and there.

        Raises:
            StoreError: the disk or the remote refuses.
        """
        self._pull()
        note = super().write(note)
        path = self._path(note)
        self.remote.write(f"{FOLDER}/{path.name}", path.read_bytes())
        return note

    @contextlib.contextmanager
    def hold(self, note: ExperimentNote) -> Iterator[None]:
        """Write ``note`` and mark its experiment as being run, for every machine."""
        with super().hold(note), self.marks.hold(f"{_mark(note)}{secrets.token_hex(4)}"):
            yield

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Be the only one, of all machines, who brings a view up to date."""
        while True:
            with self.marks.hold("view") as ours:
                if ours:
                    yield
                    return
            time.sleep(RENEW_S / 5)

    def alive(self, note: ExperimentNote) -> bool:
        """Whether a driver runs the experiment now, on any machine."""
        if super().alive(note):
            return True
        marks = [at_s for name, at_s in self.remote.listing(ALIVE).items() if name.startswith(_mark(note))]
        return bool(marks) and self.remote.now_s() - max(marks) < ALIVE_S

    def read(self) -> tuple[list[ExperimentNote], list[str]]:
        """Every note, begun first first, and a line about each file that isn't one."""
        self._pull()
        return super().read()

    def _pull(self) -> None:
        """Copy what is newer there."""
        fresh = {}
        for name, at_s in self.remote.listing(FOLDER).items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_mtime != at_s:
                fresh[f"{FOLDER}/{name}"] = path, at_s
        for name, data in self.remote.read_all(list(fresh)).items():
            path, at_s = fresh[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            scratch.write_bytes(data)
            os.utime(scratch, (at_s, at_s))
            os.replace(scratch, path)


def _mark(note: ExperimentNote) -> str:
    return f"{note.name}-{note.id}-"
