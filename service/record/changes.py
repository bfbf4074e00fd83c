"""A config beside a baseline recipe's: every setting that differs, by the path that ``--set`` takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from service.spec import OWN, RunSpec, brief


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One setting."""

    path: str
    baseline: str
    here: str


def changes_of(baseline: RunSpec, spec: RunSpec) -> tuple[Change, ...]:
    """What differs, in the order of the config's fields; of a part that only one side has, one row."""
    pairs = [("", baseline.config, spec.config)]
    pairs += [(name, getattr(baseline, name), getattr(spec, name)) for name in OWN]
    return tuple(change for path, was, here in pairs for change in _changes(path, was, here))


def _changes(path: str, was: Any, here: Any) -> Iterator[Change]:
    if type(was) is type(here) and is_dataclass(was):
        for one in fields(was):
            inner = f"{path}.{one.name}" if path else one.name
            yield from _changes(inner, getattr(was, one.name), getattr(here, one.name))
    elif was != here:
        yield Change(path=path, baseline=brief(was), here=brief(here))
