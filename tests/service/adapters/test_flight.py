from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("s3fs")

from service.adapters.flight import LockLost, held
from service.adapters.leases import LEASE_S, Leases
from service.adapters.remote import Remote
from service.adapters.store_fsspec import RemoteStore

KEY = "train-0123456789abcdef"
on_each = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)


def test_a_lost_lease_ends_the_block_that_held_it(url: str, tmp_path: Path) -> None:
    clock = [0.0]
    holder = RemoteStore(tmp_path / "a", Remote(url))
    other = Leases(Remote(url), lambda: clock[0])
    ended: list[str] = []

    async def compute() -> None:
        async with held(holder, KEY) as ours:
            assert ours
            with other.hold(KEY) as taken:
                assert not taken
            clock[0] += LEASE_S
            with other.hold(KEY) as taken:
                assert taken
                try:
                    await asyncio.to_thread(holder.leases.renew)
                    await asyncio.sleep(60)
                finally:
                    ended.append("its gang")

    with pytest.raises(LockLost):
        asyncio.run(compute())
    assert ended == ["its gang"]


@on_each
def test_who_is_cancelled_while_it_asks_for_a_lock_leaves_none(url: str, tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "a", Remote(url))

    async def ask() -> None:
        async with held(store, KEY):
            raise AssertionError("never inside")

    async def cancel() -> None:
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancel())
    assert store.leases.taken() == set()
