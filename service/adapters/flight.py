"""The store's locks and files in an event loop: what asks a network is asked in a thread, and a lost lock is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ParamSpec, TypeVar

from model.report import StageReport
from service.adapters.store_fs import FolderStore
from service.faults import Point, fault

P = ParamSpec("P")
T = TypeVar("T")


class LockLost(Exception):
    """Another has taken over the key that the block was computing; what it ran has been ended."""


async def ask(store: FolderStore, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call``, without holding up the event loop where ``store`` is slow."""
    return await asyncio.to_thread(call, *args, **kwargs) if store.slow else call(*args, **kwargs)


async def computed_once(store: FolderStore, key: str, compute: Callable[[], Awaitable[StageReport]]) -> StageReport:
    """The report of ``key``: from ``store``, or by ``compute``, which one of all processes at a time calls."""
    while True:
        with contextlib.suppress(LockLost):
            async with held(store, key) as ours:
                # Looked up under the lock: another process may have finished it while we waited.
                report = await ask(store, store.find, key)
                if report is not None:
                    return report
                if ours:
                    fault(Point.LOCKED)
                    return await compute()
        await asyncio.sleep(store.look_again_s)


@contextlib.asynccontextmanager
async def held(store: FolderStore, key: str) -> AsyncIterator[bool]:
    """``store.lock(key)``; a block that holds a lock which is lost is cancelled and ends with LockLost."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    inside = lost = False

    def end() -> None:
        nonlocal lost
        if inside:
            lost = True
            task.cancel()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(end)

    lock = store.lock(key, tell)
    entering = asyncio.ensure_future(ask(store, lock.__enter__))
    try:
        ours = await asyncio.shield(entering)
    except asyncio.CancelledError:
        if await entering is not None:
            await ask(store, lock.__exit__, None, None, None)
        raise
    inside = True
    try:
        try:
            yield ours
        finally:
            inside = False
            await asyncio.shield(asyncio.ensure_future(ask(store, lock.__exit__, None, None, None)))
    except asyncio.CancelledError:
        if not lost or task.uncancel() > 0:  # somebody else has cancelled us, too
            raise
        raise LockLost(key) from None
