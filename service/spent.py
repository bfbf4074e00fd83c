"""What was computed since some moment and what it took of the GPUs, from the store's files alone.

A ledger knows it exactly, but dies with its driver. Here each try counts for its gang's time: as its finished stage
tells it, else from its job to the last line of its log. Stages that another driver computed meanwhile count, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.job import LOG
from service.ports import StageStore
from service.progress import began_s, spoke_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What some tries came to."""

    computed: frozenset[str]
    """Keys that one of them finished."""
    gpu_hours: float


def tried_before(store: StageStore, keys: Collection[str]) -> dict[str, int]:
    """Key -> number of its newest try, to tell later which ones are new."""
    return {key: store.attempts(key) for key in keys}


def spent_since(store: StageStore, ranks: Mapping[str, int], before: Mapping[str, int]) -> Spent:
    """What the tries after those of ``before`` took; ``ranks`` says how many the gang of each key has."""
    return spent_on(store, ranks, lambda attempt: int(attempt.name) > before.get(attempt.parent.name, 0))


def spent_on(
    store: StageStore,
    ranks: Mapping[str, int],
    counts: Callable[[Path], bool],
    running: Collection[str] = (),
    now_s: float = 0.0,
) -> Spent:
    """What the tries took that ``counts`` says yes to, those of ``running`` keys up to ``now_s``, a Unix time."""
    computed, seconds = set(), 0.0
    for key, width in ranks.items():
        tries = store.tries(key)
        done = store.made_of(key) if tries else None
        for attempt in filter(counts, tries):
            newest = attempt == tries[-1]
            if newest and done is not None:
                computed.add(key)
                # Those that shared a gang share its time.
                seconds += width * done.gang_s / done.company
            else:
                seconds += width * _lasted_s(store, attempt, now_s if newest and key in running else None)
    return Spent(computed=frozenset(computed), gpu_hours=seconds / 3600)


def _lasted_s(store: StageStore, attempt: Path, until_s: float | None) -> float:
    """How long an unfinished try has held its gang; 0 for one that went along in another's."""
    began = began_s(attempt)
    if began is None or store.gang_of(attempt) != attempt:
        return 0.0
    spoke = spoke_s(attempt / LOG)
    until = until_s if until_s is not None else spoke if spoke is not None else began
    return max(0.0, until - began)
