"""What is under way now: experiments with what they have spent, and each running stage with how far it is.

Worked out from notes and store, as ``caddie status`` is; it starts no Ray and asks none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.logs import Entry, entries_of, is_over, short
from service.money import Price
from service.notes import ConfigNote, ExperimentNote
from service.ports import StageStore
from service.progress import Progress, began_s, progress, spoke_s
from service.spent import spent_on


def top_json(
    notes: Sequence[ExperimentNote],
    store: StageStore,
    alive: Callable[[ExperimentNote], bool],
    price: Price,
    now_s: float | None = None,
) -> dict[str, Any]:
    """``experiments`` that a driver runs, begun last first, and ``running`` stages, the oldest first; in seconds,
    GPU-hours and USD."""
    now_s = time.time() if now_s is None else now_s
    entries: dict[str, Entry] = {}
    for one in entries_of(notes, store):
        entries.setdefault(one.key, one)
    running, published = store.running(), store.published()
    live = sorted((note for note in notes if alive(note)), key=lambda note: (-note.started_s, note.id))
    rows = [_stage(entries[key], log, store, now_s) for key, log in running.items() if key in entries]
    return {
        "experiments": [_experiment(note, store, running, published, price, now_s) for note in live],
        "running": sorted(rows, key=lambda row: (-(row["elapsed_s"] or 0.0), row["key"])),
        "node_usd_per_hour": price.node_usd_per_hour,
    }


def _experiment(
    note: ExperimentNote,
    store: StageStore,
    running: Collection[str],
    published: Collection[str],
    price: Price,
    now_s: float,
) -> dict[str, Any]:
    """What its driver has spent is what was tried since it began: in the store's own clock, and with the stages that
    another driver computed for both."""
    ranks = {key: _ranks(config) for config in note.configs for keys in config.seeds.values() for key in keys.values()}
    seeds = [keys.values() for config in note.configs for keys in config.seeds.values()]

    def since(attempt: Path) -> bool:
        return (began_s(attempt) or 0.0) >= note.started_s

    hours = spent_on(store, ranks, since, running, now_s).gpu_hours
    budget = note.budget_gpu_hours
    return {
        "name": note.name,
        "id": note.id,
        "elapsed_s": now_s - note.started_s,
        "seeds": {"done": sum(all(key in published for key in keys) for keys in seeds), "total": len(seeds)},
        "stages": {"done": sum(key in published for key in ranks), "total": len(ranks)},
        "gpu_hours": hours,
        "usd": price.usd(hours),
        "budget_gpu_hours": budget,
        "left_gpu_hours": None if budget is None else budget - hours,
        "left_usd": None if budget is None else price.usd(budget - hours),
    }


def _stage(one: Entry, log: Path, store: StageStore, now_s: float) -> dict[str, Any]:
    attempt = log.parent
    gang, known = store.gang_of(attempt), progress(log)
    began = began_s(gang)
    waiting = began is None or is_over(attempt, store)
    # One that shares a gang speaks late, and hangs no sooner than the gang does.
    spoke = max((at for at in (spoke_s(log), spoke_s(gang / log.name), began) if at is not None), default=None)
    elapsed = None if began is None else max(0.0, now_s - began)
    config = next((c for c in one.note.configs if one.key in _keys(c)), None) if one.note else None
    return {
        "key": one.key,
        "experiment": one.note.name if one.note else None,
        "stage": one.stage,
        "seed": one.seed,
        "state": "waiting" if waiting else "running",
        "attempt": int(attempt.name),
        "elapsed_s": elapsed,
        "part": known.part or None,
        "step": known.step or None,
        "loss_nats": known.loss_nats,
        "val_bpb": known.val_bpb,
        "eta_s": None if waiting else _eta_s(known, elapsed),
        "silent_s": None if spoke is None else max(0.0, now_s - spoke),
        "ranks": _ranks(config) if config else None,
        "device": config.params.get("gang.device") if config else None,
        "gang_of": gang.parent.name if gang != attempt else None,
        "log": str(log),
    }


def _eta_s(known: Progress, elapsed_s: float | None) -> float | None:
    """Seconds left at the pace so far, of a score with its start; None while there is no pace."""
    if known.left_s is not None:
        return known.left_s
    return elapsed_s * (1 - known.part) / known.part if elapsed_s is not None and known.part else None


def _keys(config: ConfigNote) -> set[str]:
    return {key for keys in config.seeds.values() for key in keys.values()}


def _ranks(config: ConfigNote) -> int:
    return int(config.params.get("gang.ranks", 1))


def stage_cells(row: Mapping[str, Any]) -> list[str]:
    """A running stage as cells: stage, seed, of, gang, try, time, done, now, left, silent."""
    done = row["step"] or (f"{100 * row['part']:.0f}%" if row["part"] else "-")
    now = "-"
    if row["loss_nats"] is not None:
        now = f"loss {row['loss_nats']:.4f}"
    elif row["val_bpb"] is not None:
        now = f"bpb {row['val_bpb']:.4f}"
    gang = "-" if row["ranks"] is None else f"{row['ranks']} x {row['device']}"
    return [
        short(row["key"]),
        "-" if row["seed"] is None else str(row["seed"]),
        row["experiment"] or "-",
        gang + (" shared" if row["gang_of"] else ""),
        str(row["attempt"]),
        _time(row["elapsed_s"]),
        "waits" if row["state"] == "waiting" else done,
        now,
        _time(row["eta_s"]),
        _time(row["silent_s"]),
    ]


CELLS = ("stage", "seed", "of", "gang", "try", "time", "done", "now", "left", "silent")
"""Heads of :func:`stage_cells`."""


def experiment_line(row: Mapping[str, Any], price: Price) -> str:
    """``slot-tiny: 3/15 seeds, 12/21 stages, 1:05, 0.02 GPU-h (0.05 USD)``."""
    seeds, stages = row["seeds"], row["stages"]
    left = ""
    if row["left_gpu_hours"] is not None:
        left = f", {price.show(max(0.0, row['left_gpu_hours']))} left of the budget"
    return (
        f"{row['name']}: {seeds['done']}/{seeds['total']} seeds, {stages['done']}/{stages['total']} stages, "
        f"{_time(row['elapsed_s'])}, {price.show(row['gpu_hours'])}{left}"
    )


def _time(seconds: float | None) -> str:
    """``1:05``, ``2:01:05``."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
