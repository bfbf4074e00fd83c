"""Locks between drivers that share nothing but objects: leases that their holder renews and anybody may see go stale.

``locks/<key>.<n>`` is created only if it isn't there, so that one of many gets it; its holder writes something new into
it every few seconds. Who sees the same content for LEASE_S **of its own monotonic clock** takes over by creating
``n + 1`` in the same way, and a holder that finds that has lost its lease. The generations before are left until the
last one ends, so that a listing never looks empty while a key is held. No two clocks are ever compared. A holder that
can't reach the store goes on: it loses nothing until somebody else has taken over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from service.adapters.remote import Remote
from service.errors import StoreError

RENEW_S = 5.0
"""How often a holder renews."""
LEASE_S = 20.0
"""How long a lease must look the same before another takes over."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, eq=False)
class Lease:
    """One lease that we hold or have lost."""

    folder: str
    key: str
    generation: int
    before: Sequence[int]
    """Generations that this one took over from."""
    on_loss: Callable[[], None]
    owner: str = field(default_factory=lambda: f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}")
    """Says who holds it, to people as well; no two are alike."""
    beats: int = 0
    over: bool = False
    """Released or lost."""
    guard: threading.Lock = field(default_factory=threading.Lock)
    """So that no renewal under way brings a released lease back."""

    def name(self, ahead: int = 0) -> str:
        return f"{self.folder}/{self.key}.{self.generation + ahead}"

    def names(self) -> list[str]:
        """Everything of this key, ours last."""
        return [f"{self.folder}/{self.key}.{number}" for number in self.before] + [self.name()]

    def content(self) -> bytes:
        return f"{self.owner} {self.beats}\n".encode()

    def is_ours(self, content: bytes | None) -> bool:
        """Whether some content is ours, of whichever beat."""
        return content is not None and content.startswith(f"{self.owner} ".encode())


class Leases:
    """The leases of one store, taken and observed by this process."""

    def __init__(self, remote: Remote, clock: Callable[[], float] = time.monotonic, folder: str = "locks") -> None:
        self.remote, self.clock, self.folder = remote, clock, folder
        self._held: set[Lease] = set()
        self._seen: dict[str, tuple[int, bytes, float]] = {}
        """Of leases of others by key: generation, content, and since when it hasn't changed."""
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def hold(self, key: str, on_loss: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Try to be the only one who holds ``key``; False when somebody else does, for all that we can know.

        ``on_loss`` is called from a thread, once, when another has taken the lease over.
        """
        lease = self._take(key, on_loss)
        if lease is None:
            yield False
            return
        with self._guard:
            self._held.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew_for_ever, daemon=True, name="leases")
                self._thread.start()
        try:
            yield True
        finally:
            self._release(lease)

    def taken(self) -> set[str]:
        """The keys on which somebody, perhaps no longer alive, has a lease."""
        return {name.rpartition(".")[0] for name in self.remote.listing(self.folder)}

    def renew(self) -> None:
        """Renew what we hold, once; whoever lost a lease is told."""
        with self._guard:
            held = list(self._held)
        for lease in held:
            try:
                kept = self._renewed(lease)
            except StoreError as error:
                _log.warning("the lease on %s can't be renewed now: %s", lease.key, error)
                continue
            if not kept:
                _log.warning("the lease on %s was taken over: this process stood still, or was cut off", lease.key)
                with self._guard:
                    self._held.discard(lease)
                lease.on_loss()

    def _take(self, key: str, on_loss: Callable[[], None]) -> Lease | None:
        generations = sorted(
            int(number)
            for name in self.remote.listing(self.folder)
            if name.rpartition(".")[0] == key and (number := name.rpartition(".")[2]).isdecimal()
        )
        newest = generations[-1] if generations else 0
        if newest and not self._is_stale(key, newest):
            return None
        lease = Lease(folder=self.folder, key=key, generation=newest + 1, before=generations, on_loss=on_loss)
        if not self.remote.create(lease.name(), lease.content()):
            return None
        self._seen.pop(key, None)
        return lease

    def _is_stale(self, key: str, generation: int) -> bool:
        content = self.remote.read(f"{self.folder}/{key}.{generation}")
        if content is None:  # released just now
            return False
        before = self._seen.get(key)
        if before is None or before[:2] != (generation, content):
            self._seen[key] = (generation, content, self.clock())
            return False
        return self.clock() - before[2] >= LEASE_S

    def _renewed(self, lease: Lease) -> bool:
        with lease.guard:
            if lease.over:
                return True
            ours = lease.is_ours(self.remote.read(lease.name())) and self.remote.read(lease.name(1)) is None
            if ours:
                lease.beats += 1
                self.remote.write(lease.name(), lease.content())
            lease.over = not ours
            return ours

    def _release(self, lease: Lease) -> None:
        with self._guard:
            self._held.discard(lease)
        with lease.guard:
            if lease.over:
                return
            lease.over = True
            try:
                if lease.is_ours(self.remote.read(lease.name())):
                    for name in lease.names():
                        self.remote.delete(name)
            except StoreError as error:
                _log.warning("the lease on %s frees itself in %.0f s: %s", lease.key, LEASE_S, error)

    def _renew_for_ever(self) -> None:
        pause = threading.Event()
        while not pause.wait(RENEW_S):
            with self._guard:
                if not self._held:
                    self._thread = None
                    return
            self.renew()
