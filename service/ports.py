"""The seams between what the service decides and what touches the world. ``service.wiring`` joins them to adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from model.report import StageReport
from model.stages import Stage
from service.history import Finished
from service.money import Ledger
from service.results import SeedResult
from service.shown import ExperimentView, Synced
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

    def tries(self, key: str) -> Sequence[Path]:
        """Folder of every try of a stage, the oldest first."""

    def gang_of(self, attempt: Path) -> Path:
        """The try whose gang did the work of ``attempt``: itself, or that of the stage with which it went together."""

    def peek(self, key: str) -> StageReport | None:
        """The report of a finished stage, unverified, and nothing is set aside."""

    def attempts(self, key: str) -> int:
        """Number of the newest try of a stage, from 1; 0 when this store knows of none."""

    def published(self) -> Set[str]:
        """What is finished, unverified."""

    def made_of(self, key: str) -> Finished | None:
        """What a finished stage tells of itself, unverified; None when there is none that can be read."""

    def newest(self, stage: Stage, count: int) -> Sequence[Finished]:
        """The newest finished stages of a kind, the newest first."""

    def set_aside(self) -> Mapping[str, Path]:
        """Damaged entries by key, each where it was put."""

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

    def account(self) -> Ledger | None:
        """What of the budget that it was given is spent; None without one."""

    def run_trials(self, name: str, plans: Sequence[Sequence[Plan]]) -> None:
        """Run each trial's seeds under the search library; a failed seed ends its own trial only."""


class Sampler(Protocol):
    """Proposes overlays of a space. Two of the same space that are asked and told alike propose alike."""

    def ask(self) -> dict[str, Any]:
        """Another overlay; one that was proposed before may come again."""

    def tell(self, values: Sequence[float | None]) -> None:
        """What came of all that was asked since the last time, in the order of asking: what is made small, or None
        where it failed."""


class Tracker(Protocol):
    """The view for people: experiments, configs, seeds."""

    def ready(self) -> None:
        """Open the store, and set it up if it is new."""

    def sync(self, view: ExperimentView, seen: Callable[[int, int], None] = ...) -> Synced:
        """Bring what is shown up to ``view``; calling it twice changes nothing. ``seen`` hears how many runs of how
        many have been looked at."""


class Announcer(Protocol):
    """Tells the world outside how an experiment goes."""

    def post(self, document: Mapping[str, Any]) -> None:
        """Send one document; when that fails it is said, and nothing else happens."""


EngineFactory = Callable[[], AbstractContextManager[Engine]]
