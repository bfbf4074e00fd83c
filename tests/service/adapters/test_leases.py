from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

pytest.importorskip("s3fs")

from service.adapters.leases import LEASE_S, Leases
from service.adapters.remote import Remote
from service.errors import StoreError

on_each = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)

KEY = "train-0123456789abcdef"


@dataclass
class Clock:
    """One process's own clock."""

    at_s: float = 0.0

    def __call__(self) -> float:
        return self.at_s


@on_each
def test_of_many_who_want_a_key_at_once_exactly_one_gets_it_until_it_is_released(url: str) -> None:
    clients = [Leases(Remote(url)) for _ in range(4)]
    for _ in range(3):
        ready, done, got = threading.Barrier(4), threading.Barrier(4), list[bool]()

        def race(leases: Leases, ready: threading.Barrier, done: threading.Barrier, got: list[bool]) -> None:
            ready.wait()
            with leases.hold(KEY) as ours:
                got.append(ours)
                done.wait()

        threads = [threading.Thread(target=race, args=(one, ready, done, got)) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [False] * 3 + [True]
        assert clients[0].taken() == set()


def test_keys_are_held_apart_and_also_from_ourselves(url: str) -> None:
    leases = Leases(Remote(url))
    with leases.hold(KEY) as ours, leases.hold("pack-1") as other, leases.hold(KEY) as again:
        assert (ours, other, again) == (True, True, False)
        assert leases.taken() == {KEY, "pack-1"}
    with leases.hold(KEY) as ours:
        assert ours


def test_an_error_under_a_lease_releases_it(url: str) -> None:
    leases = Leases(Remote(url))
    with pytest.raises(RuntimeError, match="boom"), leases.hold(KEY):
        raise RuntimeError("boom")
    assert leases.taken() == set()


def take(leases: Leases, key: str = KEY) -> bool:
    with leases.hold(key) as ours:
        return ours


def test_a_renewed_lease_is_never_taken_over_whatever_the_clocks_say(url: str) -> None:
    holder, clock = Leases(Remote(url)), Clock()
    observer = Leases(Remote(url), clock)
    with holder.hold(KEY) as ours:
        assert ours
        for _ in range(4):
            assert not take(observer)
            clock.at_s += 100 * LEASE_S
            holder.renew()
        assert not take(observer)
        clock.at_s += LEASE_S - 0.1
        assert not take(observer), "it has looked the same for less than the lease's time"


@on_each
def test_a_lease_that_nobody_renews_is_taken_over_once_and_its_holder_told(url: str) -> None:
    holder, clock, lost = Leases(Remote(url)), Clock(), list[str]()
    observers = [Leases(Remote(url), clock) for _ in range(4)]
    with holder.hold(KEY, lambda: lost.append("lost")) as ours:
        assert ours
        assert not any(take(one) for one in observers)
        clock.at_s += LEASE_S
        got, ready, done = list[bool](), threading.Barrier(4), threading.Barrier(4)

        def race(leases: Leases) -> None:
            ready.wait()
            with leases.hold(KEY) as taken_over:
                got.append(taken_over)
                done.wait()
                if taken_over:
                    holder.renew()
                    holder.renew()
                    assert lost == ["lost"], "and only once"

        threads = [threading.Thread(target=race, args=(one,)) for one in observers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [False] * 3 + [True]
    assert lost == ["lost"]
    assert holder.taken() == set(), "neither leaves anything behind"


@pytest.mark.parametrize("then", ["released", "taken anew"])
def test_a_holder_that_slept_through_another_s_whole_turn_still_notices(url: str, then: str) -> None:
    holder, clock, lost = Leases(Remote(url)), Clock(), list[str]()
    other = Leases(Remote(url), clock)
    with holder.hold(KEY, lambda: lost.append("lost")):
        assert not take(other)
        clock.at_s += LEASE_S
        assert take(other)
        with Leases(Remote(url)).hold(KEY if then == "taken anew" else "another") as third:
            assert third
            holder.renew()
            assert lost == ["lost"]
    assert take(holder)


def test_a_holder_that_is_cut_off_keeps_its_lease(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, lost = Remote(url), list[str]()
    holder = Leases(remote)

    def away(*_: object) -> bytes:
        raise StoreError("the server is away")

    with holder.hold(KEY, lambda: lost.append("lost")):
        with monkeypatch.context() as patch:
            patch.setattr(remote, "read", away)
            holder.renew()
        holder.renew()
        assert not take(Leases(Remote(url)))
    assert lost == []
    assert take(Leases(Remote(url)))


def test_holders_renew_by_themselves(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], object], float, str], None]
) -> None:
    monkeypatch.setattr("service.adapters.leases.RENEW_S", 0.02)
    remote = Remote(f"file://{tmp_path}/remote")
    with Leases(remote).hold(KEY):
        first = remote.read(f"locks/{KEY}.1")
        until(lambda: remote.read(f"locks/{KEY}.1") != first, 20, "it is renewed")
