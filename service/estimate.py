"""What planned stages will take and whether their caps will hold, from finished stages that are like them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.stages import STAGES, Stage
from service.experiment import Contender, Experiment
from service.history import Finished
from service.ports import StageStore
from service.spec import slug
from service.stages import PlannedStage
from service.stats import Sample


@dataclass(frozen=True, slots=True)
class Expected:
    """How long a stage will take."""

    seconds: float
    """Of its gang; of a gang that it shares, its share."""
    measured: int
    """How many finished stages like it say so; 0: its cap says so."""


class Times:
    """Expected times. Like a stage are those with its gang, corpus and settings, whatever their seed and source; of
    kinds that go together also those that differ in the settings that may."""

    def __init__(self, finished: Iterable[Finished]) -> None:
        self._exact: dict[Any, list[Finished]] = defaultdict(list)
        self._alike: dict[Any, list[Finished]] = defaultdict(list)
        for one in finished:
            if one.parts:
                exact = _likeness(one.stage, one.parts)
                self._exact[exact].append(one)
                self._alike[_loosely(one.stage, exact)].append(one)
        self._together: Counter[str] = Counter()
        self._known: dict[Any, Expected] = {}

    def launch(self, planned: Iterable[PlannedStage]) -> None:
        """Say what is to run, so that those who share a gang share its time."""
        self._together.update(one.together for one in planned)

    def of(self, planned: PlannedStage) -> Expected:
        """What ``planned`` will take."""
        # A gang of many is known to take little longer than one of few; more than were seen together share no further.
        sharing = max(1, self._together[planned.together]) if planned.together else 1
        exact = _likeness(planned.stage, planned.parts)
        for known, by in ((self._exact, exact), (self._alike, _loosely(planned.stage, exact))):
            if by in known:
                if (by, sharing) not in self._known:
                    shares = [one.gang_s / min(sharing, one.company) for one in known[by]]
                    self._known[by, sharing] = Expected(math.fsum(shares) / len(shares), len(shares))
                return self._known[by, sharing]
        return Expected(planned.cap_s, 0)


def _likeness(stage: Stage, parts: Mapping[str, str]) -> tuple[Any, ...]:
    """Equal for stages that take alike long: the last is the last slice that they read."""
    slices = (parts.get(path) for path in STAGES[stage].reads)
    return stage, parts.get("gang"), parts.get("corpus"), parts.get("hardware"), *slices


def _loosely(stage: Stage, likeness: tuple[Any, ...]) -> tuple[Any, ...]:
    """Likeness without the slice in which those that go together may differ."""
    return ("loosely", *likeness[:-1]) if STAGES[stage].together else likeness


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What one cap will meet: the mean and two standard deviations (n - 1) over finished seeds of the same recipe."""

    cap: str
    """``artifact_bytes``, ``train_s`` or ``eval_s``."""
    limit: float
    config: str
    configs: int = 1
    """How many configs this row speaks for."""
    sample: Sample

    @property
    def high(self) -> float | None:
        """Mean + 2 sd; None below two seeds."""
        return None if self.sample.sd is None else self.sample.mean + 2 * self.sample.sd

    @property
    def fits(self) -> bool | None:
        """None: too few seeds to say."""
        return None if self.high is None else self.high <= self.limit

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cap": self.cap,
            "limit": self.limit,
            "config": self.config,
            "configs": self.configs,
            "n": self.sample.n,
            "mean": self.sample.mean if self.sample.n else None,
            "sd": self.sample.sd,
            "mean_plus_2sd": self.high,
            "fits": self.fits,
        }

    def __str__(self) -> str:
        digits, cap = (0 if self.cap.endswith("_bytes") else 1), f"{self.limit:,.10g}"
        if not self.sample.n:
            return f"{self.cap} of {self.configs} config{'s' * (self.configs > 1)}: no data (cap {cap})"
        mean, high = self.sample.mean, self.high
        if high is None:
            return f"{self.cap} of {self.config}: {mean:,.{digits}f} of {cap} (n=1, no spread)"
        numbers = f"{mean:,.{digits}f} + 2 x {self.sample.sd or 0:,.{digits}f} = {high:,.{digits}f} of {cap}"
        return f"{self.cap} of {self.config}: {numbers} (n={self.sample.n}), {'fits' if self.fits else 'DOES NOT FIT'}"


class Recipes:
    """Finished seeds by recipe: what a whole chain was made of, but for its seeds and source."""

    def __init__(self, finished: Iterable[Finished], store: StageStore) -> None:
        self.store = store
        self._finished = {one.key: one for one in finished}
        self._numbers: dict[Any, int] = {}
        self._known: dict[str, int] = {}
        self._samples: dict[tuple[int, str], Sample] = {}
        self._seeds: dict[int, dict[int, Finished]] = defaultdict(dict)
        for one in self._finished.values():
            # The newest come first, and of a seed the newest counts.
            self._seeds[self._of_finished(one.key)].setdefault(one.seed, one)

    def sample(self, plan: Sequence[PlannedStage], stage: Stage, metric: str) -> Sample:
        """A metric of one stage of a seed's plan, over the finished seeds of the same recipe."""
        recipe = -1
        for planned in plan:
            # What a stage that is reused was made of is its own affair, and not the plan's.
            if planned.key not in self._known:
                own = self._recipe(planned.stage, planned.parts)
                self._known[planned.key] = self._of_finished(planned.key) if planned.stands_for else own
            recipe = self._known[planned.key] if planned.stage is stage else recipe
        if (recipe, metric) not in self._samples:
            found = ((seed, one.report.metrics) for seed, one in self._seeds.get(recipe, {}).items())
            values = {seed: metrics[metric] for seed, metrics in found if metric in metrics}
            self._samples[recipe, metric] = Sample(values=values)
        return self._samples[recipe, metric]

    def _of_finished(self, key: str) -> int:
        if key not in self._known:
            one = self._finished.get(key) or self.store.made_of(key)
            # One that doesn't say what it was made of is like no other.
            self._known[key] = self._recipe(one.stage, one.parts) if one and one.parts else self._number(key)
        return self._known[key]

    def _recipe(self, stage: Stage, parts: Mapping[str, str]) -> int:
        inputs = [self._of_finished(key) for name, key in parts.items() if name.startswith("input ")]
        return self._number((_likeness(stage, parts), *inputs))

    def _number(self, recipe: Any) -> int:
        return self._numbers.setdefault(recipe, len(self._numbers))


def forecasts(experiment: Experiment, recipes: Recipes, code_bytes: Callable[[], int]) -> list[Forecast]:
    """One row for each cap and recipe of which a seed has finished, and one for all of which none has; those that
    come nearest to their cap first. ``code_bytes``, which count beside the model's, are asked for only if needed."""
    titles: dict[Any, str] = {}
    samples: dict[Any, Sample] = {}
    configs: Counter[Any] = Counter()
    for contender in experiment.contenders:
        for cap, limit, sample in _samples(contender, experiment.base, recipes):
            by = (cap, limit, frozenset(sample.values.items()))
            if by not in titles:
                titles[by], samples[by] = slug(contender.overlay), sample
            configs[by] += 1
    rows = []
    for by, sample in samples.items():
        cap, limit, _ = by
        if cap == "artifact_bytes" and sample.n:
            sample = Sample(values={seed: value + code_bytes() for seed, value in sample.values.items()})
        rows.append(Forecast(cap=cap, limit=limit, config=titles[by], configs=configs[by], sample=sample))
    return sorted(rows, key=lambda row: -((row.high or 0.0) / row.limit))


def _samples(contender: Contender, base: Contender, recipes: Recipes) -> list[tuple[str, float, Sample]]:
    """Cap, limit and sample: of a seed's artifact, training and scores."""
    budget, plan = contender.spec.budget, next(iter(contender.plans.values()))
    scored = recipes.sample(plan, contender.headline, "eval_s")
    beside = next(iter(base.plans.values()))
    paired = contender.headline is not base.headline and base.headline is Stage.SLIDING
    if scored.n and paired and [one.key for one in plan[:-1]] == [one.key for one in beside[:-1]]:
        # A record scores by sliding, too, and the cap is of all scores together.
        sliding = recipes.sample(beside, Stage.SLIDING, "eval_s").values
        scored = Sample(values={s: value + sliding[s] for s, value in scored.values.items() if s in sliding})
    return [
        ("artifact_bytes", budget.artifact_bytes, recipes.sample(plan, Stage.PACK, "model_bytes")),
        ("train_s", budget.train_s, recipes.sample(plan, Stage.TRAIN, "train_s")),
        ("eval_s", budget.eval_s, scored),
    ]
