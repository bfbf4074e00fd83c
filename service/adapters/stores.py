"""Which stage store, and the same one from every node of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from service.adapters.notes_fs import NoteFolder
from service.adapters.store_fs import FolderStore
from service.settings import read_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreAt:
    """Where a store is: small enough to tell every broker and gang."""

    home: Path
    """CADDIE_HOME: the store itself, or, with a ``url``, a node's cache of it."""
    url: str = ""
    """CADDIE_STORE: S3, or what else :class:`service.adapters.remote.Remote` knows."""

    def from_here(self) -> StoreAt:
        """The same store from the node that we are on: with a ``url``, its cache is that node's own CADDIE_HOME."""
        return replace(self, home=read_settings().home) if self.url else self


def open_store(at: StoreAt) -> FolderStore:
    """The store at a place.

    Raises:
        StoreError: the disk or the remote refuses.
    """
    if not at.url:
        return FolderStore(at.home)
    from service.adapters.remote import Remote  # fsspec and S3 take a second to import
    from service.adapters.store_fsspec import RemoteStore

    return RemoteStore(at.home, Remote(at.url))


def open_notes(at: StoreAt) -> NoteFolder:
    """The notes of experiments beside a store.

    Raises:
        StoreError: the remote refuses.
    """
    if not at.url:
        return NoteFolder(at.home)
    from service.adapters.notes_fsspec import RemoteNotes
    from service.adapters.remote import Remote

    return RemoteNotes(at.home, Remote(at.url))
