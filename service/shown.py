"""What a view for people shows, as plain values: experiments, runs in two levels, pictures. A tracker writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class RunStatus(StrEnum):
    """As MLflow calls them. KILLED: ended before its work was done, by choice or because its driver is gone."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """One row: a config, or a seed of one."""

    key: str
    """What it stands for, never how it turned out: by this it is found again."""
    name: str
    status: RunStatus
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    start_ms: int
    """Unix time in milliseconds, of its first stage."""
    end_ms: int
    """Of its last stage; meaningless while it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigView:
    """A config with its seeds below it."""

    run: RunView
    seeds: tuple[RunView, ...]
    figures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    """File name -> its drawing as a PNG."""
    drawn: str = ""
    """Digest of all that the figures show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentView:
    """Everything that a view shows of one experiment."""

    name: str
    configs: tuple[ConfigView, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """What bringing a view up to date took, in runs."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0
