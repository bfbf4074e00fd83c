"""What an experiment's stages cost: what was computed for it, what it found finished, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.money import Price
from service.notes import ExperimentNote
from service.ports import StageStore
from service.progress import began_s
from service.spent import spent_on


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some stages or tries, and the GPU-hours that they took."""

    count: int
    gpu_hours: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Money:
    """Stages by what became of them. A rank is a GPU, on a CPU too."""

    price: Price
    computed: Part
    """Finished since the experiment was begun last."""
    cached: Part
    """Finished before that, or by nodes whose tries this store doesn't know: not paid again."""
    failed: Part
    """Tries that gave no result, of whatever time; those that run now among them, up to their last words."""
    missing: int
    """Stages that aren't finished."""
    budget_gpu_hours: float | None
    on_cpu: bool

    @property
    def all_gpu_hours(self) -> float:
        """What it takes to have all of it, whoever paid when."""
        return self.computed.gpu_hours + self.cached.gpu_hours + self.failed.gpu_hours


def money_of(note: ExperimentNote, store: StageStore, price: Price) -> Money:
    """From the store's files alone; a ledger knows it to the second, but dies with its driver."""
    ranks = _ranks(note)
    new: dict[str, float] = {}
    old: dict[str, float] = {}
    lost: list[Path] = []
    for key, width in ranks.items():
        tries, done = store.tries(key), store.made_of(key)
        lost += tries if done is None else tries[:-1]
        if done is not None:
            ours = bool(tries) and (began_s(tries[-1]) or 0.0) >= note.started_s
            (new if ours else old)[key] = width * done.gang_s / done.company / 3600
    wasted = set(lost)
    return Money(
        price=price,
        computed=Part(count=len(new), gpu_hours=sum(new.values())),
        cached=Part(count=len(old), gpu_hours=sum(old.values())),
        failed=Part(count=len(lost), gpu_hours=spent_on(store, ranks, wasted.__contains__).gpu_hours),
        missing=len(ranks) - len(new) - len(old),
        budget_gpu_hours=note.budget_gpu_hours,
        on_cpu=any(config.params.get("gang.device") == "cpu" for config in note.configs),
    )


def _ranks(note: ExperimentNote) -> Mapping[str, int]:
    """Every stage, once -> ranks of its gang."""
    return {
        key: int(config.params.get("gang.ranks", 1))
        for config in note.configs
        for keys in config.seeds.values()
        for key in keys.values()
    }
