"""The seams between what the service decides and what touches the world. ``service.wiring`` joins them to adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from model.report import StageReport
from service.results import GroupResult, SeedResult
from service.spec import GangShape
from service.stages import PlannedStage

Plan = tuple[PlannedStage, ...]
"""The stages of one seed, in running order."""


class StageStore(Protocol):
    """Finished stages by key. The truth: everything else can be rebuilt from it."""

    def find(self, key: str) -> StageReport | None:
        """The verified report of a finished stage; a damaged entry is set aside and is not there any more."""

    def folder(self, key: str) -> Path:
        """Where the outputs of a finished stage lie."""

    def log(self, key: str) -> str:
        """What the ranks of a finished stage printed."""

    def attempts(self, key: str) -> int:
        """Number of the newest try of a stage, from 1; 0 when this store knows of none."""

    def running(self) -> Mapping[str, Path]:
        """Log file of every stage that is being computed now, by key."""


class Engine(Protocol):
    """Runs stages that aren't in the store yet; each key once at a time, whoever asks."""

    def check(self, gang: GangShape) -> None:
        """Raise ClusterError at once if no node can ever hold ``gang``."""

    def start_seed(self, plan: Plan) -> Any:
        """Begin a seed's chain; a handle for :meth:`wait`."""

    def wait(self, handles: Sequence[Any]) -> list[SeedResult]:
        """The results of started seeds, in order; failed ones carry their error."""

    def outcome(self, plan: Plan) -> SeedResult:
        """What is known of a seed that was or wasn't started, without starting anything."""

    def run_trials(self, name: str, plans: Sequence[Sequence[Plan]]) -> None:
        """Run each trial's seeds under the search library; a failed seed ends its own trial only."""


class Tracker(Protocol):
    """The view for people: experiments, configs, seeds."""

    def sync(self, experiment: str, groups: Sequence[GroupResult]) -> None:
        """Bring the view up to what ``groups`` say; calling it twice changes nothing."""


EngineFactory = Callable[[], AbstractContextManager[Engine]]
