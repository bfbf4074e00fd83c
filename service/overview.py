"""Small views of specs that several outputs share."""

from __future__ import annotations

import dataclasses
from typing import Any

from service.spec import RunSpec


def flat_params(spec: RunSpec) -> dict[str, str]:
    """Every setting of a spec by dotted path, as ``--set`` takes it."""
    params = _flat("", spec.config) | _flat("gang.", spec.gang) | _flat("budget.", spec.budget)
    return params | {"corpus": spec.corpus}


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if not dataclasses.is_dataclass(value):
        return {prefix.rstrip("."): str(value)}
    found: dict[str, str] = {}
    for field in dataclasses.fields(value):
        found |= _flat(f"{prefix}{field.name}.", getattr(value, field.name))
    return found
