"""Carrying out a race: seed by seed, only those who can still win, and the winner again on fresh seeds.

Round by round everyone left is asked for the same seed at once, so that scores which go together share a gang; then
:func:`service.racing.standing` decides. It reads finished results only: a driver that begins again finds them in the
store, decides the same, and asks for what is missing. Nothing else is remembered.

A round is a run of the search library of its own. A trial that waited for its rivals' numbers would hold one of the few
places in flight that those rivals need.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from service.experiment import Contender, Experiment, lookup, with_errors
from service.ports import Engine, EngineFactory, StageStore
from service.racing import Racer, Standing, Stop, standing
from service.results import GroupResult, SeedStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Heat:
    """Contenders that race against each other: honest ones, or ones that learned from what they score."""

    who: tuple[int, ...]
    """Their places in the experiment; the standing counts them in this order."""
    stands: Standing

    @property
    def asks(self) -> list[tuple[int, int]]:
        """(contender, seed) to be run next."""
        return [(self.who[i], seed) for i, seed in self.stands.asks]


def heats(experiment: Experiment, groups: Sequence[GroupResult], failed: Collection[int] = frozenset()) -> list[Heat]:
    """How the race of ``experiment`` stands; ``failed`` are contenders that won't get the seed they lack.

    Whether a score leaks shows with its first seed, and then it stops no honest one.
    """
    assert experiment.race is not None
    kinds = ([i for i, g in enumerate(groups) if not g.leaks], [i for i, g in enumerate(groups) if g.leaks])
    found = []
    for who in filter(None, kinds):
        racers = [_racer(experiment.contenders[i], groups[i], i == 0) for i in who]
        out = [place for place, i in enumerate(who) if i in failed]
        found.append(Heat(who=tuple(who), stands=standing(racers, experiment.seeds, experiment.race.racing, out)))
    return found


def _racer(contender: Contender, group: GroupResult, reference: bool) -> Racer:
    first = next(iter(contender.plans.values()))
    artifacts = tuple(planned.key for planned in first if not planned.stage.startswith("score."))
    return Racer(values=group.bpb.values, artifacts=artifacts, reference=reference)


def _next(experiment: Experiment, standings: Sequence[Heat]) -> list[tuple[int, int]]:
    """What is to be run now. First seeds come before all else: they say who races against whom."""
    asks = [ask for heat in standings for ask in heat.asks]
    return [ask for ask in asks if ask[1] == experiment.seeds[0]] or asks


def run_race(
    experiment: Experiment,
    store: StageStore,
    engine_factory: EngineFactory,
    watching: Callable[..., AbstractContextManager[object]] = lambda *_: nullcontext(),
) -> tuple[GroupResult, ...]:
    """Race; the groups in the order of the contenders. The winner, the best honest one if any, is marked and carries
    its group over the fresh seeds; who was stopped says after how many seeds, and failed seeds have their error.

    The base is the reference: it gets all seeds and is never stopped, but it may win. Nothing is started when nothing
    is missing. ``watching`` is entered while stages run, with another experiment for the fresh seeds.
    """
    groups = [lookup(contender, store) for contender in experiment.contenders]
    decided = final(experiment, groups)
    if decided is not None and (decided[1] is None or _whole(lookup(decided[1], store))):
        return _marked(experiment, groups, store, None)
    with engine_factory() as engine:
        engine.check(experiment.base.spec.gang)
        failed: set[int] = set()
        with watching():
            while asks := _next(experiment, heats(experiment, groups, failed)):
                _round(experiment, asks, engine)
                for i in {i for i, _ in asks}:
                    groups[i] = lookup(experiment.contenders[i], store)
                failed |= {i for i, seed in asks if groups[i].seeds[seed].status is not SeedStatus.DONE}
        decided = final(experiment, groups, failed)
        if decided is not None and decided[1] is not None:
            fresh = decided[1]
            again = Experiment(name=f"{experiment.name}-confirm", seeds=tuple(fresh.plans), contenders=(fresh,))
            missing = [r.plan for r in lookup(fresh, store).seeds.values() if r.status is not SeedStatus.DONE]
            with watching(again):
                engine.wait([engine.start_seed(plan) for plan in missing])
        # Also of who was stopped: rivals may have finished stages that they share.
        groups = [lookup(contender, store) for contender in experiment.contenders]
        return _marked(experiment, groups, store, engine, failed)


def _round(experiment: Experiment, asks: Sequence[tuple[int, int]], engine: Engine) -> None:
    """The base runs beside the trials, and they share its stages."""
    plans = [(i, experiment.contenders[i].plans[seed]) for i, seed in asks]
    handles = [engine.start_seed(plan) for i, plan in plans if i == 0]
    trials = [[plan] for i, plan in plans if i]
    if trials:
        engine.run_trials(experiment.name, trials)
    engine.wait(handles)


def out_of_race(
    experiment: Experiment, groups: Sequence[GroupResult], failed: Collection[int] = frozenset()
) -> dict[int, Stop]:
    """The contenders that the race of ``experiment`` has stopped, by their places."""
    standings = heats(experiment, groups, failed)
    return {heat.who[place]: stop for heat in standings for place, stop in heat.stands.stopped.items()}


def _whole(group: GroupResult) -> bool:
    return len(group.done) == len(group.seeds)


def final(
    experiment: Experiment, groups: Sequence[GroupResult], failed: Collection[int] = frozenset()
) -> tuple[int, Contender | None] | None:
    """The winner and what confirms it; None while the race goes on, or when nobody has all seeds."""
    assert experiment.race is not None
    standings = heats(experiment, groups, failed)
    if _next(experiment, standings):
        return None
    first = next((heat.who[heat.stands.finished[0]] for heat in standings if heat.stands.finished), None)
    if first is None:
        return None
    return first, experiment.race.fresh[first] if experiment.race.fresh else None


def _marked(
    experiment: Experiment,
    groups: Sequence[GroupResult],
    store: StageStore,
    engine: Engine | None,
    failed: Collection[int] = frozenset(),
) -> tuple[GroupResult, ...]:
    """``groups`` with what the race says of them."""
    marked = list(groups)
    for i, stop in out_of_race(experiment, groups, failed).items():
        group = groups[i]
        if not _whole(group):
            seeds = {seed: replace(result, stopped=True) for seed, result in group.seeds.items()}
            why = f"after {stop.after} of {len(group.seeds)} seeds: {stop.because}"
            marked[i] = replace(group, seeds=seeds, stopped=why)
    decided = final(experiment, groups, failed)
    if decided is not None:
        winner, fresh = decided
        confirmed = lookup(fresh, store) if fresh else None
        if confirmed and engine:
            confirmed = with_errors(confirmed, engine)
        marked[winner] = replace(marked[winner], won=True, confirmed=confirmed)
    return tuple(group if group.stopped or engine is None else with_errors(group, engine) for group in marked)
