"""What commands stand on: recipes and sweeps by name, experiments made of them, and carried out."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from model.data.shards import Corpus
from model.stages import Stage
from service.contest import run_race
from service.errors import CaddieError, RecordError, SpecError
from service.experiment import Contender, Experiment, Race, contend, lookup, run_experiment
from service.money import Ledger, Price, parse_budget
from service.notes import ended, note_of
from service.plan import ExperimentPlan, many_objects, plan_experiment
from service.ports import Engine
from service.racing import Racing
from service.record.bundle import bundle
from service.recording import from_home
from service.results import GroupResult
from service.reuse import check_reuse, reused_stages
from service.settings import read_settings
from service.spec import RunSpec, SweepSpec, parse_changes, parse_seeds
from service.stages import Planner
from service.view import view_of
from service.watch import watch
from service.wiring import Wiring, provenance


class Commands:
    """The use cases over given recipes and sweeps; progress goes to ``err``, results to ``out``."""

    def __init__(self, recipes: Mapping[str, str], sweeps: Mapping[str, SweepSpec]) -> None:
        self.recipes, self.sweeps = recipes, sweeps
        self.wiring = Wiring(read_settings())
        self.out, self.err = (
            Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else 100)
            for stderr, stream in ((False, sys.stdout), (True, sys.stderr))
        )

    # What is asked for.

    def recipe(self, name: str, changes: Sequence[str] | None) -> RunSpec:
        """A recipe by name, with ``--set`` applied."""
        if name not in self.recipes:
            raise SpecError(f"no recipe {name!r}; there is {', '.join(sorted(self.recipes))}")
        module, _, function = self.recipes[name].partition(":")
        spec: RunSpec = getattr(importlib.import_module(module), function)()
        return spec.at(parse_changes(changes or []))

    def run_of(
        self, spec: RunSpec, changes: Sequence[str] | None, seeds: str, reuse: Sequence[str] | None = None
    ) -> Experiment:
        """One spec with all its scores; the base shows the first, and each further score is a row of its own."""
        numbers, overlay = parse_seeds(seeds), parse_changes(changes or [])
        planner = self.planner(spec, reuse)
        contenders = tuple(
            contend(spec, overlay, numbers, planner.corpus, stage, (stage,), planner) for stage in spec.scores
        )
        if not contenders:
            raise SpecError(f"recipe {spec.name} has no score turned on")
        check_reuse(planner, (plan for contender in contenders for plan in contender.plans.values()))
        return Experiment(name=f"run-{spec.name}", seeds=numbers, contenders=contenders)

    def sweep_of(
        self, sweep: SweepSpec, base: RunSpec, seeds: str | None, reuse: Sequence[str] | None = None
    ) -> Experiment:
        """The base's honest score, and each trial's own; over the sweep's own seeds unless others are given."""
        with many_objects():
            specs = sweep.specs(base)
            numbers = parse_seeds(seeds) if seeds else sweep.seeds
            planner = self.planner(base, reuse)
            contenders = [contend(base, {}, numbers, planner.corpus, Stage.SLIDING, (Stage.SLIDING,), planner)]
            for stage, overlay, spec in specs:
                contenders.append(contend(spec, overlay, numbers, planner.corpus, stage, (stage,), planner))
        check_reuse(planner, (plan for contender in contenders for plan in contender.plans.values()))
        return Experiment(name=f"{sweep.name}-{base.name}", seeds=numbers, contenders=tuple(contenders), search=True)

    def raced(
        self, experiment: Experiment, racing: Racing | None, race: bool | None, confirm: str | None
    ) -> Experiment:
        """``experiment`` as a race, if the sweep says so or ``--race`` does.

        Raises:
            SpecError: seeds that can't be raced over, or ``--confirm`` without a race.
        """
        if race is False or (race is None and racing is None):
            if confirm:
                raise SpecError(f"--confirm {confirm}: nothing is confirmed without --race")
            return experiment
        rules = racing or Racing()
        if confirm:
            rules = replace(rules, confirm=() if confirm == "none" else parse_seeds(confirm))
        try:
            rules.check(experiment.seeds)
        except ValueError as error:
            raise SpecError(f"--race: {error}") from error
        planner = self.planner(experiment.base.spec, None)

        def again(one: Contender) -> Contender:
            scores = tuple(dict.fromkeys((Stage.SLIDING, one.headline)))  # a record shows both
            return contend(one.spec, one.overlay, rules.confirm, planner.corpus, one.headline, scores, planner)

        fresh = tuple(map(again, experiment.contenders)) if rules.confirm else ()
        return replace(experiment, race=Race(racing=rules, fresh=fresh))

    def sweep_named(self, name: str, spaces: Sequence[str] | None) -> SweepSpec:
        """A sweep by name, with axes replaced or added by ``--space``."""
        if name not in self.sweeps:
            raise SpecError(f"no sweep {name!r}; there is {', '.join(sorted(self.sweeps))}")
        return self.sweeps[name].with_axes(spaces or [])

    def planner(self, spec: RunSpec, reuse: Sequence[str] | None) -> Planner:
        """A planner over the corpus of ``spec``, with the finished stages that ``--reuse`` names."""
        return Planner(self.corpus(spec), reused_stages(reuse, self.wiring.store()) if reuse else None)

    def planned(self, experiment: Experiment, node_usd_per_hour: float | None = None) -> ExperimentPlan:
        """What an experiment needs, costs, and how near it comes to its caps."""
        spec = experiment.base.spec

        def code_bytes() -> int:
            corpus = next(iter(experiment.base.plans.values()))[0]
            place = from_home(Path(corpus.corpus))
            code = bundle(spec.config, corpus=place, corpus_digest=corpus.corpus_digest, threads=spec.gang.threads)
            return len(code.encode())

        with many_objects():
            return plan_experiment(experiment, self.wiring.store(), self.price(node_usd_per_hour), code_bytes)

    def price(self, node_usd_per_hour: float | None = None) -> Price:
        """The price of a node: as given, as set, or the usual one."""
        given = self.wiring.settings.node_usd_per_hour if node_usd_per_hour is None else node_usd_per_hour
        return Price() if given is None else Price(node_usd_per_hour=given)

    def corpus(self, spec: RunSpec) -> Corpus:
        """The corpus, made if it isn't there."""
        return self.wiring.corpus(spec, lambda what: self.err.print(f"corpus: {what}"))

    # What is done.

    def carry_out(
        self, experiment: Experiment, budget: str | None = None, node_usd_per_hour: float | None = None
    ) -> tuple[GroupResult, ...]:
        """Run what is missing and bring MLflow up to date; results stay in the store whatever MLflow does.

        Raises:
            SpecError: ``budget`` can't pay it.
        """
        store = self.wiring.store()
        plan = plan_experiment(experiment, store, self.price(node_usd_per_hour))
        ledger = plan.ledger(parse_budget(budget, plan.price)) if budget else None
        to_run = len(plan.to_run)
        self.err.print(
            f"{experiment.name}: {len(experiment.contenders)} configs x {len(experiment.seeds)} seeds, "
            f"{len(plan.rows) - to_run} stages done, {to_run} to run"
        )
        source, notes = provenance(), self.wiring.notes()
        note = note_of(experiment, git_sha=source.git_sha, git_dirty=source.dirty, started_s=time.time())
        with notes.hold(note):
            run = run_race if experiment.race else run_experiment
            groups = run(
                experiment,
                store,
                lambda: self.engine(ledger),
                watching=lambda what=experiment: watch(what, store, self.err),
            )
            notes.write(ended(note, groups))
        self.view(experiment.name, groups)
        return groups

    @contextlib.contextmanager
    def engine(self, ledger: Ledger | None) -> Iterator[Engine]:
        """An engine that launches what ``ledger`` pays; says in the end what became of the money."""
        with self.wiring.engine(ledger) as engine:
            yield engine
            if (account := engine.account()) is not None:
                self.err.print(account.story(), soft_wrap=True)

    def view(self, name: str, groups: Sequence[GroupResult]) -> None:
        """Bring MLflow up to date, or say why not."""
        notes = self.wiring.notes()
        begun = [note for note in notes.read()[0] if note.name == name]
        just_seen = {
            result.key(stage): report
            for group in groups
            for result in group.seeds.values()
            for stage, report in result.reports.items()
        }
        try:
            with notes.showing():
                self.wiring.tracker().sync(view_of(begun, self.wiring.store(), notes.alive, just_seen))
        except CaddieError as error:
            self.err.print(
                f"MLflow is behind: {error}\n  The results are in the store; the next run, or caddie sync, fills it in."
            )

    def finished(self, experiment: Experiment) -> tuple[GroupResult, ...]:
        """The groups of an experiment that has run.

        Raises:
            RecordError: a stage is missing; the message names the first.
        """
        store = self.wiring.store()
        groups = tuple(lookup(contender, store) for contender in experiment.contenders)
        for group in groups:
            for result in group.seeds.values():
                missing = [planned.stage for planned in result.plan if planned.stage not in result.reports]
                if missing:
                    raise RecordError(f"seed {result.seed} has no finished {missing[0]}; run the recipe first")
        return groups


MakeCommands = Callable[[], Commands]
"""How a command gets its Commands when it runs, and not before: they read the settings and look at the terminal."""
