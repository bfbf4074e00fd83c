"""What an experiment needs and why: each stage, whether it is there and what differs if not, what it costs, and whether
the caps will hold. Starts nothing."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.report import StageReport
from model.stages import Stage
from service.contest import final, out_of_race
from service.errors import SpecError
from service.estimate import Expected, Forecast, Recipes, Times, forecasts
from service.experiment import Contender, Experiment, lookup
from service.history import Finished
from service.money import Ledger, Price, gpu_hours
from service.nearest import Nearest, Settings, Words
from service.ports import StageStore
from service.stages import PlannedStage

LOOKED_AT = 300
"""Newest finished stages of each kind that a plan compares with: a store may hold tens of thousands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A stage of a plan."""

    planned: PlannedStage
    users: int
    """Configs that need it."""
    cached: bool
    because: str
    nearest: str = ""
    """Key of the finished stage it was compared with."""
    expected: Expected | None = None
    """None when it is there."""
    confirms: bool = False
    """Whether it is run only to measure a race's winner again."""

    @property
    def gpu_hours(self) -> float:
        """Expected; 0 when it is there."""
        return gpu_hours(self.planned.gang, self.expected.seconds) if self.expected else 0.0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        planned, expected = self.planned, self.expected
        row = {
            "stage": str(planned.stage),
            "seed": planned.seed,
            "key": planned.key,
            "cached": self.cached,
            "because": self.because,
            "nearest": self.nearest or None,
            "users": self.users,
            "gpu_hours": self.gpu_hours,
            "expected_s": expected.seconds if expected else None,
            "measured": expected.measured if expected else None,
            "confirms": self.confirms,
        }
        return row | ({"stands_for": planned.stands_for} if planned.stands_for else {})


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentPlan:
    """A planned experiment."""

    experiment: Experiment
    rows: Mapping[str, Row]
    """By key, in the order in which stages can run."""
    price: Price
    forecasts: Sequence[Forecast]
    confirming: Mapping[str, float] = field(default_factory=dict)
    """Stage key -> GPU-hours of whoever may be confirmed; the costliest one's stages are rows."""
    typical: Mapping[str, float] = field(default_factory=dict)
    """Kind of stage -> GPU-hours of one, on the average of the trials that are known; of trials that aren't."""
    each: float = 0.0
    """GPU-hours of a trial that isn't known yet: as the known ones take on the average, beside the base's stages."""

    @property
    def later(self) -> float:
        """GPU-hours of the trials that aren't known yet."""
        return self.experiment.to_propose * self.each

    @property
    def to_run(self) -> list[Row]:
        return [row for row in self.rows.values() if not row.cached]

    @property
    def shared(self) -> int:
        """Stages that more than one config uses."""
        return sum(row.users > 1 for row in self.rows.values())

    @property
    def by_caps(self) -> int:
        """Stages to run whose time is their cap, because nothing like them has finished."""
        return sum(row.expected is not None and not row.expected.measured for row in self.rows.values())

    @property
    def gpu_hours(self) -> float:
        """Of the rows, and of trials that aren't known yet."""
        return sum(row.gpu_hours for row in self.rows.values()) + self.later

    def ledger(self, limit: float) -> Ledger:
        """A ledger of ``limit`` GPU-hours that reserves what this plan expects.

        Raises:
            SpecError: the plan can't be paid; the message says what could be.
        """
        if self.gpu_hours > limit:
            raise SpecError(
                f"the plan needs {self.price.show(self.gpu_hours)}, the budget is {self.price.show(limit)}"
                f"{f' ({self.by_caps} of {len(self.to_run)} stages counted by their caps)' if self.by_caps else ''}: "
                f"{self._what_fits(limit)}"
            )
        expected = {key: row.gpu_hours for key, row in self.rows.items() if not row.cached}
        return Ledger(limit=limit, expected={**self.confirming, **expected}, typical=self.typical, price=self.price)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        to_run = len(self.to_run)
        return {
            "name": self.experiment.name,
            "configs": len(self.experiment.contenders),
            "seeds": list(self.experiment.seeds),
            "to_run": to_run,
            "cached": len(self.rows) - to_run,
            "shared": self.shared,
            "gpu_hours": self.gpu_hours,
            "usd": self.price.usd(self.gpu_hours),
            "node_usd_per_hour": self.price.node_usd_per_hour,
            "by_caps": self.by_caps,
            "confirming": sum(row.confirms for row in self.rows.values()),
            "not_proposed_yet": {"trials": self.experiment.to_propose, "gpu_hours": self.later},
            "forecasts": [forecast.to_json() for forecast in self.forecasts],
            "stages": [row.to_json() for row in self.rows.values()],
        }

    def _what_fits(self, limit: float) -> str:
        """The most seeds, and the most configs, that ``limit`` pays; in the order they are given."""
        experiment, found = self.experiment, []
        seeds = _longest(experiment.seeds, limit, lambda part: self._cost(len(experiment.contenders), part))
        if seeds:
            listed = ",".join(map(str, experiment.seeds[:seeds]))
            found.append(f"--seeds {listed} ({self.price.show(self._cost(len(experiment.contenders), seeds))})")
        every = len(experiment.seeds)
        configs = _longest(experiment.contenders, limit, lambda part: self._cost(part, every))
        if experiment.sampling:
            first = experiment.sampling.given
            fit = int((limit - self._cost(first, every)) / self.each) if self.each else 0
            if fit > 0:
                found.append(f"--trials {fit} ({self.price.show(self._cost(first, every) + fit * self.each)})")
        elif configs:
            found.append(f"the first {configs} configs ({self.price.show(self._cost(configs, every))})")
        return f"it pays {' or '.join(found)}" if found else "it doesn't pay one seed or one config"

    def _cost(self, configs: int, seeds: int) -> float:
        chosen = self.experiment.seeds[:seeds]
        keys = {p.key for c in self.experiment.contenders[:configs] for seed in chosen for p in c.plans[seed]}
        known = configs == len(self.experiment.contenders)
        later = self.later * seeds / len(self.experiment.seeds) if known else 0.0
        confirming = sum(row.gpu_hours for row in self.rows.values() if row.confirms)
        # A race has dropped stages that are no rows any more.
        return sum(self.rows[key].gpu_hours for key in keys if key in self.rows) + later + confirming


def plan_experiment(
    experiment: Experiment,
    store: StageStore,
    price: Price | None = None,
    code_bytes: Callable[[], int] | None = None,
) -> ExperimentPlan:
    """The plan of an experiment. ``code_bytes`` are what the code of its record takes of the artifact's cap."""
    users: Counter[str] = Counter()
    stages: dict[str, PlannedStage] = {}
    contenders, may_win = _who_runs(experiment, store)
    for contender in contenders:
        for planned in _stages(contender):
            users[planned.key] += 1
            stages[planned.key] = planned
    again = {planned.key: planned for contender in may_win for planned in _stages(contender)}
    published = store.published()
    reports = {key: store.find(key) if key in published else None for key in {**stages, **again}}
    kinds = {planned.stage: None for planned in (*stages.values(), *again.values())}
    history = {kind: store.newest(kind, LOOKED_AT) for kind in kinds}
    newest = [one for found in history.values() for one in found]
    times = Times(newest)
    times.launch(planned for key, planned in stages.items() if reports[key] is None)

    def hours(planned: PlannedStage) -> float:
        return gpu_hours(planned.gang, times.of(planned).seconds)

    confirming = {key: hours(planned) for key, planned in again.items() if key not in stages and reports[key] is None}
    costliest = max(may_win, key=lambda one: sum(confirming.get(p.key, 0.0) for p in _stages(one)), default=None)
    fresh = {planned.key for planned in _stages(costliest)} - stages.keys() if costliest else set()
    users.update(fresh)
    reasons = Reasons({**stages, **again}, reports, history, store)
    rows = {}
    for key, planned in {**stages, **{key: again[key] for key in again if key in fresh}}.items():
        because, nearest = reasons.of(planned)
        rows[key] = Row(
            planned=planned,
            users=users[key],
            cached=reports[key] is not None,
            because=f"confirms the winner on a fresh seed: {because}" if key in fresh else because,
            nearest=nearest,
            expected=times.of(planned) if reports[key] is None else None,
            confirms=key in fresh,
        )
    held = forecasts(experiment, Recipes(newest, store), code_bytes or (lambda: 0)) if newest else []
    typical, each = _typical(experiment, hours)
    return ExperimentPlan(
        experiment=experiment,
        rows=rows,
        price=price or Price(),
        forecasts=held,
        confirming=confirming,
        typical=typical,
        each=each,
    )


def _stages(contender: Contender) -> Iterator[PlannedStage]:
    return (planned for plan in contender.plans.values() for planned in plan)


def _who_runs(experiment: Experiment, store: StageStore) -> tuple[Sequence[Contender], Sequence[Contender]]:
    """The contenders that run, and those that may be confirmed; without those that a race has stopped already."""
    if experiment.race is None:
        return experiment.contenders, ()
    groups = [lookup(contender, store) for contender in experiment.contenders]
    stopped, decided = out_of_race(experiment, groups), final(experiment, groups)
    left = [one for i, one in enumerate(experiment.contenders) if i not in stopped]
    if decided is not None:
        return left, [decided[1]] if decided[1] else []
    return left, [one for i, one in enumerate(experiment.race.fresh) if i not in stopped]


def _typical(experiment: Experiment, hours: Callable[[PlannedStage], float]) -> tuple[dict[str, float], float]:
    """GPU-hours of a stage by its kind, and of a whole trial, as those take that have been proposed; what they share
    with contenders that were given costs a trial nothing."""
    sampling = experiment.sampling
    proposed = experiment.contenders[sampling.given :] if sampling else ()
    if not sampling or not proposed:
        return {}, 0.0
    given = {planned.key for contender in experiment.contenders[: sampling.given] for planned in _stages(contender)}
    found = {planned.key: planned for contender in proposed for planned in _stages(contender)}
    kinds: dict[str, list[float]] = defaultdict(list)
    for planned in found.values():
        kinds[str(planned.stage)].append(hours(planned))
    own = sum(hours(planned) for key, planned in found.items() if key not in given)
    return {kind: sum(each) / len(each) for kind, each in kinds.items()}, own / len(proposed)


class Reasons:
    """Why a stage is there, or isn't."""

    def __init__(
        self,
        stages: Mapping[str, PlannedStage],
        reports: Mapping[str, StageReport | None],
        history: Mapping[Stage, Sequence[Finished]],
        store: StageStore,
    ) -> None:
        self.stages, self.reports, self.store = stages, reports, store
        self.damaged = store.set_aside()
        settings = Settings()
        self.words = Words(settings)
        self.nearest = {kind: Nearest(found, settings) for kind, found in history.items()}
        self.seeds = {kind: {one.seed for one in found} for kind, found in history.items()}

    def of(self, planned: PlannedStage) -> tuple[str, str]:
        """In words, and the key it was compared with."""
        report = self.reports[planned.key]
        if planned.stands_for:
            return self._reused(planned), planned.key
        if report is not None:
            return f"finished, in {report.elapsed_s:.1f} s", planned.key
        if planned.key in self.damaged:
            place = self.damaged[planned.key]
            return f"its entry was damaged and set aside as {place.parent.name}/{place.name}", ""
        return self._missing(planned)

    def _reused(self, planned: PlannedStage) -> str:
        one = self.store.made_of(planned.key)
        differs = self.words.differences(one, planned) if one and one.parts else ["it doesn't say what it is made of"]
        builds = self._builds_on(planned, one) if one else []
        return f"reused for {planned.stands_for}, although {'; '.join((*differs, *builds))}"

    def _missing(self, planned: PlannedStage) -> tuple[str, str]:
        kind, one = planned.stage, self.nearest[planned.stage].to(planned)
        builds = self._builds_on(planned, one)
        first = []
        if "seed" in planned.parts and planned.seed not in self.seeds[kind]:
            first = [f"{kind} of seed {planned.seed} was never run"]
        if one is None:
            return "; ".join([*(first or [f"no {kind} like it has finished here"]), *builds]), ""
        differs = self.words.differences(one, planned)
        if differs:
            return "; ".join([*first, f"differs from {one.key}: {', '.join(differs)}", *builds]), one.key
        return "; ".join([*first, *builds]), one.key

    def _builds_on(self, planned: PlannedStage, one: Finished | None) -> list[str]:
        found = []
        for stage, key in planned.inputs.items():
            if one is not None and one.parts.get(f"input {stage}") == key:
                continue
            before = [name for name in one.parts if name.startswith("input ")] if one else []
            if self.reports.get(key) is None:
                found.append(f"builds on {key}, which is to run")
            elif one and before:
                found.append(f"builds on {key} and not on {one.parts[before[0]]}")
        return found


def _longest(items: Sequence[Any], limit: float, cost: Callable[[int], float]) -> int:
    """The longest proper beginning that costs at most ``limit``; costs only grow."""
    low, high = 0, len(items) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle - 1)
    return low


@contextlib.contextmanager
def many_objects() -> Iterator[None]:
    """While tens of thousands of objects are made that all stay: the collector would walk them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
