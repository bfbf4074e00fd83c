"""Small views of specs and plans that several outputs share."""

from __future__ import annotations

import dataclasses
from typing import Any

from service.experiment import Experiment
from service.ports import StageStore
from service.spec import RunSpec


def flat_params(spec: RunSpec) -> dict[str, str]:
    """Every setting of a spec by dotted path, as ``--set`` takes it."""
    params = _flat("", spec.config) | _flat("gang.", spec.gang) | _flat("budget.", spec.budget)
    return params | {"corpus": spec.corpus}


def plan_json(experiment: Experiment, store: StageStore) -> dict[str, Any]:
    """Each distinct stage, whether it is in the store, and how many configs share it."""
    wanted = [p.key for c in experiment.contenders for plan in c.plans.values() for p in plan]
    stages = []
    for key, (stage, seed) in experiment.stages.items():
        cached = store.find(key) is not None
        stages.append({"stage": str(stage), "seed": seed, "key": key, "cached": cached, "users": wanted.count(key)})
    return {
        "name": experiment.name,
        "configs": len(experiment.contenders),
        "seeds": list(experiment.seeds),
        "to_run": sum(not row["cached"] for row in stages),
        "cached": sum(bool(row["cached"]) for row in stages),
        "shared": len(wanted) - len(stages),
        "stages": stages,
    }


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if not dataclasses.is_dataclass(value):
        return {prefix.rstrip("."): str(value)}
    found: dict[str, str] = {}
    for field in dataclasses.fields(value):
        found |= _flat(f"{prefix}{field.name}.", getattr(value, field.name))
    return found
