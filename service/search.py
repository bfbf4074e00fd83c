"""Carrying out a search whose trials are proposed from results: round by round, as a race goes seed by seed.

A round's overlays are asked for, run at once, and told in the order of asking; then the next are asked for. So what is
proposed is a function of the space, the base and the finished results, and a driver that begins again asks and tells
the same, finds the finished trials in the store and goes on from there. Nothing else is remembered.

What failed is told as failed; when a later driver gets it finished, the rounds after it are others from there on. An
overlay that was proposed before is told again and is no new trial. Scores that leak measure memorisation: they are told
as failed from the round on in which an honest one is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from model.codec import digest
from service.errors import SpecError
from service.experiment import Experiment, lookup, with_errors
from service.ports import Engine, EngineFactory, StageStore
from service.results import GroupResult, SeedStatus
from service.space import MISSES
from service.spec import slug

Show = Callable[[Experiment], None]
"""Is told of the experiment whenever contenders were added to it."""


class Rounds:
    """The proposals of an experiment so far. A function of what it is told, and of nothing else."""

    def __init__(self, experiment: Experiment) -> None:
        assert experiment.sampling is not None
        self.sampling = experiment.sampling
        self.experiment = replace(experiment, contenders=experiment.contenders[: self.sampling.given])
        """With every contender that was proposed."""
        self.newest: tuple[int, ...] = ()
        """Places of the contenders of the round that is under way; none: the search is over."""
        self._sampler = self.sampling.sampler()
        trials = self.experiment.contenders[1:]  # the base has another score, and is no trial
        self._places = {digest([c.headline, dict(c.overlay)]): place for place, c in enumerate(trials, start=1)}
        self._asked: list[int | None] = []
        self.propose()

    def propose(self) -> None:
        """Ask for a round."""
        contenders, misses = list(self.experiment.contenders), 0
        end = min(len(contenders) + self.sampling.at_once, self.sampling.given + self.sampling.trials)
        first = len(contenders)
        while len(contenders) < end and misses < MISSES:
            overlay = self._sampler.ask()
            try:
                contender = self.sampling.contend(overlay)
            except SpecError:  # values that don't fit together; each of them alone was checked before
                self._asked.append(None)
                misses += 1
                continue
            by = digest([contender.headline, overlay])
            if by in self._places:
                misses += 1
            else:
                self._places[by] = len(contenders)
                contenders.append(contender)
                misses = 0
            self._asked.append(self._places[by])
        self.newest = tuple(range(first, len(contenders)))
        self.experiment = replace(self.experiment, contenders=tuple(contenders))

    def tell(self, groups: Sequence[GroupResult]) -> None:
        """Tell the results of the round, one group for each contender so far, and ask for the next."""
        honest = any(whole(group) and not group.leaks for group in groups[1:])

        def value(place: int | None) -> float | None:
            group = None if place is None else groups[place]
            return group.bpb.mean if group and whole(group) and not (honest and group.leaks) else None

        self._sampler.tell([value(place) for place in self._asked])
        self._asked = []
        self.propose()


def whole(group: GroupResult) -> bool:
    """Whether every seed is there."""
    return len(group.done) == len(group.seeds)


def replay(experiment: Experiment, store: StageStore) -> tuple[Rounds, list[GroupResult]]:
    """The rounds that finished results decide, with the one that is to be run next, and what the store knows of each
    contender."""
    rounds = Rounds(experiment)
    groups: list[GroupResult] = []
    while True:
        groups += [lookup(one, store) for one in rounds.experiment.contenders[len(groups) :]]
        if not rounds.newest or not all(map(whole, groups)):
            return rounds, groups
        rounds.tell(groups)


def known(experiment: Experiment, store: StageStore) -> Experiment:
    """``experiment`` with every contender that can be known before anything more has run."""
    return replay(experiment, store)[0].experiment if experiment.sampling else experiment


def run_search(
    experiment: Experiment,
    store: StageStore,
    engine_factory: EngineFactory,
    watching: Callable[[Experiment], AbstractContextManager[Show]] = lambda _: nullcontext(lambda _: None),
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[GroupResult, ...]:
    """Search; the groups in the order of proposal, after the contenders that were given, failed seeds with their error.

    Nothing is started when nothing is missing. ``watching`` is entered while stages run, and what it gives is called
    with the experiment whenever that has grown; ``tell`` hears what a round proposes, and why a search ends before it
    has all its trials.
    """
    rounds, groups = replay(experiment, store)
    if not rounds.newest and all(map(whole, groups)):
        _tell_short(rounds, "", tell)
        return tuple(groups)
    with engine_factory() as engine:
        engine.check(experiment.base.spec.gang)
        with watching(rounds.experiment) as show:
            why, tried = "", 0
            _tell_round(rounds, tell)
            while not why and tried < len(groups):
                # What failed in an earlier round isn't tried again by this driver.
                _run(experiment.name, groups[tried:], base=tried == 0, engine=engine)
                groups[tried:] = [lookup(one, store) for one in rounds.experiment.contenders[tried:]]
                tried = len(groups)
                why = _ends(rounds, groups, engine)
                if rounds.newest and not why:
                    rounds.tell(groups)
                    _tell_round(rounds, tell)
                    show(rounds.experiment)
                    groups += [lookup(one, store) for one in rounds.experiment.contenders[tried:]]
        _tell_short(rounds, why, tell)
        # Looked up again: later trials may have finished stages that an earlier one lacked.
        return tuple(with_errors(lookup(one, store), engine) for one in rounds.experiment.contenders)


def _run(name: str, groups: Sequence[GroupResult], *, base: bool, engine: Engine) -> None:
    """What is missing of ``groups``; the base, the first of all, runs beside the trials, and they share its stages."""
    missing = [[r.plan for r in group.seeds.values() if r.status is not SeedStatus.DONE] for group in groups]
    handles = [engine.start_seed(plan) for plan in (missing[0] if base else [])]
    if trials := list(filter(None, missing[1:] if base else missing)):
        engine.run_trials(name, trials)
    engine.wait(handles)


def _ends(rounds: Rounds, groups: Sequence[GroupResult], engine: Engine) -> str:
    """Why no further round is run."""
    account = engine.account()
    if account is not None and account.refused:
        return "the budget doesn't pay more"
    if rounds.newest and not any(whole(groups[place]) for place in rounds.newest):
        return f"all {len(rounds.newest)} trials of the last round failed, and nothing is learned from that"
    return ""


def _tell_round(rounds: Rounds, tell: Callable[[str], None]) -> None:
    if rounds.newest:
        titles = "; ".join(slug(rounds.experiment.contenders[place].overlay) for place in rounds.newest)
        last = rounds.newest[-1] + 1 - rounds.sampling.given
        first = last - len(rounds.newest) + 1
        tell(f"search: trials {first} to {last} of {rounds.sampling.trials}: {titles}")


def _tell_short(rounds: Rounds, why: str, tell: Callable[[str], None]) -> None:
    """Say it when there are fewer trials than were asked for."""
    trials, proposed = rounds.sampling.trials, len(rounds.experiment.contenders) - rounds.sampling.given
    if why or proposed < trials:
        why = why or "nothing else is proposed, the space seems to hold no more"
        tell(f"search: it ends after {proposed} of {trials} trials: {why}")
