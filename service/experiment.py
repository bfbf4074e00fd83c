"""The main job: contenders x seeds. Look in the store, run what is missing, answer with groups.

A contender is a spec with the scores that are asked of it. Contender 0 is the base; the others are its overlays and
share its stages wherever their keys are equal, so a sweep over scoring knobs trains each seed once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from model.data.shards import Corpus
from model.stages import Stage
from service.errors import CaddieError
from service.ports import Engine, EngineFactory, Plan, Sampler, StageStore
from service.racing import Racing
from service.results import GroupResult, SeedResult, SeedStatus
from service.spec import RunSpec
from service.stages import Planner


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One config of a comparison, planned for every seed."""

    spec: RunSpec
    overlay: Mapping[str, Any]
    headline: Stage
    plans: Mapping[int, Plan]


@dataclass(frozen=True, kw_only=True, slots=True)
class Race:
    """How an experiment's contenders after the base race over its seeds; :mod:`service.contest` carries it out."""

    racing: Racing
    fresh: tuple[Contender, ...] = ()
    """Each contender over the seeds that confirm, if it wins; none when nothing is confirmed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Contenders that are proposed from the results of those before them; :mod:`service.search` carries it out."""

    trials: int
    """How many are proposed in all, at most."""
    at_once: int
    """How many in a round."""
    given: int
    """Contenders that were there before any was proposed."""
    digest: str
    """Of the space and all else that decides what is proposed."""
    sampler: Callable[[], Sampler]
    """A fresh one, which was asked and told nothing."""
    contend: Callable[[Mapping[str, Any]], Contender]
    """A proposal as a contender; a SpecError where it doesn't fit the base."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """What is to be known: contenders over the same seeds."""

    name: str
    seeds: tuple[int, ...]
    contenders: tuple[Contender, ...]
    search: bool = False
    """Whether the contenders after the base are trials of the search library."""
    race: Race | None = None
    """None: every contender gets every seed."""
    sampling: Sampling | None = None
    """None: all contenders are known from the beginning."""

    @property
    def base(self) -> Contender:
        return self.contenders[0]

    @property
    def to_propose(self) -> int:
        """Contenders that aren't known yet."""
        return self.sampling.trials - (len(self.contenders) - self.sampling.given) if self.sampling else 0

    @property
    def stages(self) -> dict[str, tuple[Stage, int]]:
        """Every distinct stage by key, with its seed."""
        plans = (plan for contender in self.contenders for plan in contender.plans.values())
        return {planned.key: (planned.stage, planned.seed) for plan in plans for planned in plan}


def contend(
    spec: RunSpec,
    overlay: Mapping[str, Any],
    seeds: Sequence[int],
    corpus: Corpus,
    headline: Stage,
    scores: tuple[Stage, ...],
    planner: Planner | None = None,
) -> Contender:
    """Plan ``spec`` for every seed with ``scores``; ``headline``, one of them, speaks for it. ``planner``, of the same
    corpus, remembers what contenders share."""
    assert headline in scores
    plans = (planner or Planner(corpus)).seeds(spec, seeds, scores)
    return Contender(spec=spec, overlay=overlay, headline=headline, plans=plans)


def lookup(contender: Contender, store: StageStore) -> GroupResult:
    """What the store knows of a contender."""
    return lookup_all([contender], store)[0]


def lookup_all(contenders: Sequence[Contender], store: StageStore) -> list[GroupResult]:
    """What the store knows of each contender; a stage that many share is read and verified once."""
    find, attempts_of = functools.cache(store.find), functools.cache(store.attempts)
    groups = []
    for contender in contenders:
        seeds = {}
        for seed, plan in contender.plans.items():
            found = {planned.stage: find(planned.key) for planned in plan}
            reports = {stage: report for stage, report in found.items() if report is not None}
            attempts = {planned.stage: attempts_of(planned.key) for planned in plan}
            seeds[seed] = SeedResult(seed=seed, plan=plan, reports=reports, attempts=attempts)
        spec, overlay, headline = contender.spec, contender.overlay, contender.headline
        groups.append(GroupResult(spec=spec, overlay=overlay, seeds=seeds, headline=headline))
    return groups


def run_experiment(
    experiment: Experiment,
    store: StageStore,
    engine_factory: EngineFactory,
    watching: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[GroupResult, ...]:
    """Run every stage that is missing; the groups in the order of the contenders, failed seeds with their error.

    Nothing is started when nothing is missing. ``watching`` is entered while stages run.
    """
    groups = lookup_all(experiment.contenders, store)
    if all(len(group.done) == len(group.seeds) for group in groups):
        return tuple(groups)
    with engine_factory() as engine:
        engine.check(experiment.base.spec.gang)
        with watching():
            _run_missing(experiment, groups, engine)
            return tuple(with_errors(group, engine) for group in lookup_all(experiment.contenders, store))


def _run_missing(experiment: Experiment, groups: Sequence[GroupResult], engine: Engine) -> None:
    """Whatever is missing at once; in a search the base runs beside the trials, and they share its stages."""
    at_once, trials = (groups[:1], groups[1:]) if experiment.search else (groups, [])
    handles = [engine.start_seed(result.plan) for group in at_once for result in _unfinished(group)]
    plans = [[result.plan for result in _unfinished(group)] for group in trials]
    if any(plans):
        engine.run_trials(experiment.name, [missing for missing in plans if missing])
    engine.wait(handles)


def _unfinished(group: GroupResult) -> list[SeedResult]:
    return [result for result in group.seeds.values() if result.status is not SeedStatus.DONE]


def with_errors(group: GroupResult, engine: Engine) -> GroupResult:
    """``group`` with the reason beside each seed that isn't done."""
    seeds = dict(group.seeds)
    for result in _unfinished(group):
        error = engine.outcome(result.plan).error or "not run: another seed of this config failed"
        seeds[result.seed] = replace(result, error=error)
    return replace(group, seeds=seeds)


def best(groups: Sequence[GroupResult]) -> GroupResult:
    """The complete group with the lowest mean.

    Raises:
        CaddieError: no group has all its seeds.
    """
    complete = [group for group in groups if group.seeds and len(group.done) == len(group.seeds)]
    if not complete:
        errors = [f"seed {r.seed} of {g.title}: {r.error}" for g in groups for r in g.failed]
        raise CaddieError("no config finished all its seeds\n  " + "\n  ".join(errors[:5]))
    return min(complete, key=lambda group: group.bpb.mean)


def best_honest(groups: Sequence[GroupResult]) -> GroupResult:
    """The best group whose score doesn't leak; of leaking ones only when there is no other, for the rules to refuse."""
    return best([group for group in groups if not group.leaks] or groups)
