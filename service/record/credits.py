"""Whose work a config builds on, of what its recipe knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from service.spec import Credit, RunSpec


def credits_of(spec: RunSpec) -> tuple[Credit, ...]:
    """The credits whose part is turned on, by pull request; several of one are put together."""
    parts = set(_parts(spec.config))
    by_pr: dict[int, Credit] = {}
    for one in spec.credits:
        if one.when and one.when not in parts:
            continue
        before = by_pr.get(one.pr)
        what = one.what if before is None else f"{before.what}; {one.what}"
        by_pr[one.pr] = Credit(pr=one.pr, what=what, author=one.author or (before.author if before else ""))
    return tuple(by_pr[pr] for pr in sorted(by_pr))


def _parts(value: Any) -> Iterator[str]:
    """Class names of a config and of all that it holds."""
    if is_dataclass(value):
        yield type(value).__name__
        for one in fields(value):
            yield from _parts(getattr(value, one.name))
