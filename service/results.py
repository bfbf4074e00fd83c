"""What came out, readable without torch and Ray: seeds with their stage reports, and groups of seeds of one spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from model.report import StageReport
from model.stages import Stage
from service.errors import CaddieError
from service.spec import RunSpec, slug
from service.stages import PlannedStage
from service.stats import Sample


class SeedStatus(StrEnum):
    """RUNNING -> DONE | FAILED | STOPPED. Only DONE counts in a mean; a failed seed stays in view."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    """Not run, because a race stopped its config."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    """One seed of one spec: its plan and the report of each stage that has finished."""

    seed: int
    plan: tuple[PlannedStage, ...]
    reports: Mapping[Stage, StageReport] = field(default_factory=dict)
    attempts: Mapping[Stage, int] = field(default_factory=dict)
    """Number of each stage's newest try, 0 for none; for a view only, no record says it."""
    error: str = ""
    """Set exactly when the seed failed."""
    stopped: bool = False

    @property
    def status(self) -> SeedStatus:
        if self.error:
            return SeedStatus.FAILED
        done = all(planned.stage in self.reports for planned in self.plan)
        return SeedStatus.DONE if done else SeedStatus.STOPPED if self.stopped else SeedStatus.RUNNING

    def key(self, stage: Stage) -> str:
        """The key of one of this seed's stages."""
        return next(planned.key for planned in self.plan if planned.stage is stage)

    def metric(self, stage: Stage, name: str) -> float:
        """One number of one stage.

        Raises:
            CaddieError: the stage hasn't finished, or doesn't measure that.
        """
        if stage not in self.reports:
            has = ", ".join(self.reports) or "none"
            raise CaddieError(f"seed {self.seed} has no finished stage {stage}; it has {has}")
        metrics = self.reports[stage].metrics
        if name not in metrics:
            raise CaddieError(f"stage {stage} measures {', '.join(sorted(metrics))}, not {name}")
        return metrics[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupResult:
    """All seeds of one spec; ``overlay`` says how it differs from the recipe."""

    spec: RunSpec
    overlay: Mapping[str, Any]
    seeds: Mapping[int, SeedResult]
    headline: Stage
    """The scoring stage whose ``val_bpb`` speaks for this group."""
    stopped: str = ""
    """Why a race didn't run its remaining seeds: ``after 1 of 3 seeds: can't win any more``."""
    won: bool = False
    """Whether it won a race."""
    confirmed: GroupResult | None = None
    """The winner of a race over fresh seeds, which took no part in choosing it."""

    @property
    def title(self) -> str:
        return slug(self.overlay)

    @property
    def done(self) -> tuple[SeedResult, ...]:
        return tuple(result for result in self.seeds.values() if result.status is SeedStatus.DONE)

    @property
    def failed(self) -> tuple[SeedResult, ...]:
        return tuple(result for result in self.seeds.values() if result.status is SeedStatus.FAILED)

    @property
    def leaks(self) -> bool:
        """Whether a seed's headline had learned from tokens before it scored them, so that it measures memorisation."""
        reports = [result.reports[self.headline] for result in self.seeds.values() if self.headline in result.reports]
        return any(report.metrics.get("exposed", 0) > 0 for report in reports)

    def sample(self, stage: Stage, metric: str = "val_bpb") -> Sample:
        """``metric`` of every finished seed."""
        return Sample(values={result.seed: result.metric(stage, metric) for result in self.done})

    @property
    def bpb(self) -> Sample:
        """The headline's bits per byte."""
        return self.sample(self.headline)
