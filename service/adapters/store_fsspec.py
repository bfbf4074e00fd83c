"""The stage store on S3 (or another folder, through fsspec), with the home folder as this node's cache and scratch.

    entries/<key>.json          what a finished stage is: its report, and size and SHA-256 of its files
    files/<key>/<digest>/...    those files, log included, below the digest of the report that they belong to
    corpora/<digest>/...        a prepared corpus, its manifest last
    damaged/<key>.<time>.json   entries whose files were not what they should be
    locks/<key>.<n>             :mod:`service.adapters.leases`

S3 knows no rename, so an entry is created last and only if there is none: a stage is there exactly if its entry is, two
who publish the same key can't mix their files, and a half upload is never seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from model.data.shards import Corpus, open_corpus
from model.job import LOG
from model.report import REPORT, StageReport, file_ref, read_report
from model.stages import Stage
from service.adapters.corpora_fsspec import bring, share
from service.adapters.entries import Entry, entry_from_json
from service.adapters.leases import Leases
from service.adapters.locks import file_lock
from service.adapters.remote import Remote
from service.adapters.store_fs import FolderStore, refusals
from service.errors import StoreError
from service.history import MADE_OF, Finished, finished_of
from service.stages import key_prefix

ENTRIES, FILES, DAMAGED = "entries", "files", "damaged"
PATIENCE_S = (2.0, 10.0, 60.0, 180.0)
"""Pauses before another try to upload a finished stage: what it cost is more than a gang that waits for minutes."""

_log = logging.getLogger(__name__)


class RemoteStore(FolderStore):
    """A store at a URL, seen from one node; ``home`` is that node's own."""

    slow = True
    look_again_s = 3.0

    def __init__(self, home: Path, remote: Remote, leases: Leases | None = None) -> None:
        super().__init__(home)
        self.remote, self.leases = remote, leases or Leases(remote)
        self.incoming, self.corpora = home / "incoming", home / "corpora"
        self._entries: dict[str, Entry] = {}
        """Entries that were read; one changes only by being set aside."""
        self._same: set[str] = set()
        """Keys of which this node has what the remote has."""

    def find(self, key: str) -> StageReport | None:
        """The report of a finished stage: from this node, if its files are all as they were written, else fetched.

        What only this node has, as after an upload that broke off, is uploaded.
        """
        report = super().find(key)
        if report is None:
            return self._fetch(key)
        return report if key in self._same else self._push(key)

    def publish(self, key: str, attempt: Path, made_of: Mapping[str, Any] | None = None) -> StageReport:
        """Make the outputs in ``attempt/out`` the result of ``key``, unless another has been quicker: its report then.

        Raises:
            ValueError: there is no valid report.
            StoreError: the disk or the remote refuses.
        """
        report = super().publish(key, attempt, made_of)
        if key in self._same:
            return report
        for pause_s in PATIENCE_S:
            try:
                return self._push(key)
            except StoreError as error:
                _log.warning("stage %s is finished and can't be uploaded, again in %.0f s: %s", key, pause_s, error)
                time.sleep(pause_s)
        return self._push(key)

    def brought(self, key: str) -> Path:
        """Where a finished stage's outputs lie on this node, fetched if they weren't here."""
        if self.find(key) is None:
            raise StoreError(f"{self.remote.url}: {key} was finished and isn't there any more: run the same again")
        return self.folder(key)

    def peek(self, key: str) -> StageReport | None:
        """The report of a finished stage, unverified and without fetching its files."""
        entry = self._entry(key)
        return entry.report if entry else None

    def published(self) -> set[str]:
        """What is finished, unverified."""
        return {name.removesuffix(".json") for name in self.remote.listing(ENTRIES)}

    def made_of(self, key: str) -> Finished | None:
        """What a finished stage tells of itself, unverified and without fetching its files."""
        return self._tell([key]).get(key)

    def newest(self, stage: Stage, count: int) -> list[Finished]:
        """The ``count`` newest finished stages of a kind, the newest first."""
        begin, rows = key_prefix(stage), self.remote.listing(ENTRIES).items()
        found = sorted(
            ((at_s, name.removesuffix(".json")) for name, at_s in rows if name.startswith(begin)), reverse=True
        )
        keys = [key for _, key in found[:count]]
        told = self._tell(keys)
        return [told[key] for key in keys if key in told]

    @contextlib.contextmanager
    def lock(self, key: str, on_loss: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Try to be the only one who computes ``key``: a lease, which ``on_loss`` says is lost."""
        with self.leases.hold(key, on_loss) as ours:
            yield ours

    def running(self) -> dict[str, Path]:
        """Log of the newest try of every stage that is being computed; only of tries on this node."""
        tried = [path.name for path in self.attempted.iterdir() if not (self.stages / path.name).exists()]
        taken = self.leases.taken() if tried else set()
        return {key: self._try(key, self.attempts(key)) / LOG for key in tried if key in taken}

    def share(self, corpus: Corpus) -> None:
        """Upload a prepared corpus, unless it is there."""
        share(self.remote, corpus)

    def corpus_here(self, folder: str, digest: str) -> str:
        """Where this node has the corpus that the driver has in ``folder``; fetched if it hasn't.

        Raises:
            StoreError: the store hasn't it either, or it is damaged.
        """
        own = [Path(folder)] if Path(folder).is_relative_to(self.corpora) else []
        for place in (*own, self.corpora / digest):
            with contextlib.suppress(ValueError):
                return str(open_corpus(place, digest).folder)
        with self._bringing(f"corpus-{digest}") as scratch:
            target = self.corpora / digest
            if not target.exists():
                bring(self.remote, digest, scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(scratch, target)
        return str(target)

    def _push(self, key: str) -> StageReport:
        """Upload what this node has of ``key``; where another's result is there already, that replaces ours."""
        entry = self._entry(key) or self._upload(key)
        here = self.stages / key
        if hashlib.sha256((here / REPORT).read_bytes()).hexdigest()[:16] != entry.digest:
            shutil.rmtree(here)
            report = self._fetch(key)
            if report is None:
                raise StoreError(f"{self.remote.url}: {key} was set aside while it was published: run the same again")
            return report
        self._settle(key)
        return entry.report

    def _upload(self, key: str) -> Entry:
        here = self.stages / key
        names = sorted(path.name for path in here.iterdir() if path.is_file() and not path.name.startswith("."))
        made_of = json.loads((here / MADE_OF).read_text(encoding="utf-8")) if MADE_OF in names else None
        files = {name: file_ref(here, name) for name in names}
        entry = Entry(digest=files[REPORT].sha256[:16], files=files, report=read_report(here), made_of=made_of)
        for name in names:
            self.remote.send(here / name, f"{FILES}/{key}/{entry.digest}/{name}")
        if self.remote.create(f"{ENTRIES}/{key}.json", entry.to_json()):
            self._entries[key] = entry
            return entry
        return self._entry(key) or self._upload(key)

    def _fetch(self, key: str) -> StageReport | None:
        """Bring an entry here, every file verified; one that is damaged is set aside and isn't there any more."""
        self._entries.pop(key, None)
        self._same.discard(key)
        if self._entry(key) is None:
            return None
        with self._bringing(key) as scratch:
            report = super().find(key)  # another process of this node may have been quicker
            entry = self._entry(key)
            if report is not None or entry is None:
                return report
            try:
                for name, ref in entry.files.items():
                    self.remote.fetch(f"{FILES}/{key}/{entry.digest}/{name}", scratch / name)
                    if file_ref(scratch, name) != ref:
                        raise ValueError(f"{name} has changed")
            except (ValueError, FileNotFoundError) as error:
                self._set_aside_there(key, entry.to_json(), str(error))
                return None
            try:
                os.rename(scratch, self.stages / key)
            except OSError:  # published on this node at this moment
                if (report := super().find(key)) is None:
                    raise
                return report
        self._settle(key)
        return entry.report

    def _entry(self, key: str) -> Entry | None:
        if key not in self._entries:
            data = self.remote.read(f"{ENTRIES}/{key}.json")
            if data is None:
                return None
            try:
                self._entries[key] = entry_from_json(data)
            except ValueError as error:
                self._set_aside_there(key, data, str(error))
                return None
        return self._entries[key]

    def _set_aside_there(self, key: str, data: bytes, why: str) -> None:
        target = f"{DAMAGED}/{key}.{time.time_ns()}.json"
        _log.warning(
            "stage %s is damaged (%s): set aside as %s/%s, it will be computed again", key, why, self.remote.url, target
        )
        self._entries.pop(key, None)
        if self.remote.read(f"{ENTRIES}/{key}.json") == data:  # and not yet computed again by somebody
            self.remote.write(target, data)
            self.remote.delete(f"{ENTRIES}/{key}.json")

    def _tell(self, keys: list[str]) -> dict[str, Finished]:
        names = {f"{ENTRIES}/{key}.json": key for key in keys if key not in self._entries}
        for name, data in self.remote.read_all(names).items():
            with contextlib.suppress(ValueError):
                self._entries[names[name]] = entry_from_json(data)
        told: dict[str, Finished] = {}
        for key in keys:
            if (entry := self._entries.get(key)) is not None:
                with contextlib.suppress(ValueError):
                    told[key] = finished_of(key, entry.report, entry.made_of)
        return told

    def _settle(self, key: str) -> None:
        """Ours is the remote's now; with the server's time of publication, so that a view is the same everywhere."""
        self._same.add(key)
        with contextlib.suppress(FileNotFoundError):
            at_s = self.remote.written_s(f"{ENTRIES}/{key}.json")
            os.utime(self.stages / key / REPORT, (at_s, at_s))

    @contextlib.contextmanager
    def _bringing(self, what: str) -> Iterator[Path]:
        """An empty folder to download into, for one process of this node at a time; what a killed one left goes."""
        scratch = self.incoming / what
        with refusals(self.incoming), file_lock(self.locks / f"{what}.incoming", wait=True):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
