"""Where everything stands, from notes and store alone: experiments, and the stages that run now. Only reads."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.notes import ExperimentNote
from service.ports import StageStore
from service.progress import began_s, last_line
from service.shown import RunStatus
from service.view import ConfigState, SeedState, states_of


def status_json(
    notes: Sequence[ExperimentNote],
    store: StageStore,
    alive: Callable[[ExperimentNote], bool],
    now_s: float | None = None,
) -> dict[str, Any]:
    """``experiments``, begun last first, and ``running`` stages, the oldest first; ages in seconds."""
    now_s = time.time() if now_s is None else now_s
    find = functools.cache(store.peek)
    newest = sorted(notes, key=lambda note: (-note.started_s, note.id))
    experiments = [
        _experiment(note, states_of(note, find, alive=alive(note)), store, alive(note), now_s) for note in newest
    ]
    return {"experiments": experiments, "running": _running(newest, store, now_s)}


def _experiment(
    note: ExperimentNote, states: Sequence[ConfigState], store: StageStore, alive: bool, now_s: float
) -> dict[str, Any]:
    total = sum(len(state.seeds) for state in states)
    done, failed = sum(len(state.done) for state in states), sum(len(state.failed) for state in states)
    if done == total:
        standing = "done"
    elif alive:
        standing = "running"
    elif failed:
        standing = "failed"
    else:
        # What a race stopped was a choice; whatever else is missing was broken off.
        open_ = [one for state in states if not state.config.stopped for one in state.seeds]
        standing = "done" if all(one.status is RunStatus.FINISHED for one in open_) else "interrupted"
    return {
        "name": note.name,
        "id": note.id,
        "state": standing,
        "begun_s": now_s - note.started_s,
        "configs": len(states),
        "seeds": {"done": done, "failed": failed, "total": total},
        "best": _best(states),
        "errors": [
            {"config": state.label, "seed": one.seed, "error": one.error, "key": _failed_key(one, store)}
            for state in states
            for one in state.failed
        ],
    }


def _failed_key(one: SeedState, store: StageStore) -> str | None:
    """The stage that a failed seed failed in, as far as it can be told: the first that was tried and isn't there."""
    missing = (key for stage, key in one.keys.items() if stage not in one.reports)
    return next((key for key in missing if store.attempts(key)), None)


def _best(states: Sequence[ConfigState]) -> dict[str, Any] | None:
    """The lowest mean of configs with all their seeds; of leaking ones only when there is no other."""
    whole = [state for state in states if state.seeds and state.whole]
    chosen = min([state for state in whole if not state.leaks] or whole, key=lambda state: state.bpb.mean, default=None)
    if chosen is None:
        return None
    sample = chosen.bpb
    return {
        "config": chosen.label,
        "score": str(chosen.config.headline),
        "mean_bpb": sample.mean,
        "sd_bpb": sample.sd,
        "n": sample.n,
        "leaks": chosen.leaks,
    }


def _running(notes: Sequence[ExperimentNote], store: StageStore, now_s: float) -> list[dict[str, Any]]:
    """The stages that somebody computes now, each with the experiment that wanted it last."""
    owners: dict[str, tuple[str, str, int]] = {}
    for note in notes:
        for config in note.configs:
            for seed, keys in config.seeds.items():
                for stage, key in keys.items():
                    owners.setdefault(key, (note.name, str(stage), seed))
    rows = []
    for key, log in store.running().items():
        owner = owners.get(key)
        rows.append(
            {
                "key": key,
                "stage": owner[1] if owner else key.rpartition("-")[0],
                "seed": owner[2] if owner else None,
                "experiment": owner[0] if owner else None,
                "age_s": _age_s(log, now_s),
                "last_line": last_line(log),
                "log": str(log),
            }
        )
    return sorted(rows, key=lambda row: (-(row["age_s"] or 0.0), row["key"]))


def _age_s(log: Path, now_s: float) -> float | None:
    """Since when a stage is tried; None when there is no try yet."""
    began = began_s(log.parent)
    return None if began is None else max(0.0, now_s - began)
