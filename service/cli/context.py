"""What commands stand on: recipes and sweeps by name, experiments made of them, and carried out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from model.data.shards import Corpus
from model.stages import Stage
from service.errors import CaddieError, RecordError, SpecError
from service.experiment import Experiment, contend, lookup, run_experiment
from service.overview import plan_json
from service.results import GroupResult
from service.settings import read_settings
from service.spec import RunSpec, SweepSpec, parse_changes, parse_seeds
from service.watch import watch
from service.wiring import Wiring


class Commands:
    """The use cases over given recipes and sweeps; progress goes to ``err``, results to ``out``."""

    def __init__(self, recipes: Mapping[str, str], sweeps: Mapping[str, SweepSpec]) -> None:
        self.recipes, self.sweeps = recipes, sweeps
        self.wiring = Wiring(read_settings())
        self.out, self.err = (
            Console(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else 100)
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

    def run_of(self, spec: RunSpec, changes: Sequence[str] | None, seeds: str) -> Experiment:
        """One spec with all its scores; the base shows the first, and each further score is a row of its own."""
        numbers, overlay = parse_seeds(seeds), parse_changes(changes or [])
        corpus = self.corpus(spec)
        contenders = tuple(contend(spec, overlay, numbers, corpus, stage, (stage,)) for stage in spec.scores)
        if not contenders:
            raise SpecError(f"recipe {spec.name} has no score turned on")
        return Experiment(name=f"run-{spec.name}", seeds=numbers, contenders=contenders)

    def sweep_of(self, sweep: SweepSpec, base: RunSpec, seeds: str | None) -> Experiment:
        """The base's honest score, and each trial's own; over the sweep's own seeds unless others are given."""
        sweep.check(base)
        numbers = parse_seeds(seeds) if seeds else sweep.seeds
        corpus = self.corpus(base)
        contenders = [contend(base, {}, numbers, corpus, Stage.SLIDING, (Stage.SLIDING,))]
        for stage, overlay in sweep.trials():
            contenders.append(contend(base.at(overlay), overlay, numbers, corpus, stage, (stage,)))
        return Experiment(name=f"{sweep.name}-{base.name}", seeds=numbers, contenders=tuple(contenders), search=True)

    def sweep_named(self, name: str, spaces: Sequence[str] | None) -> SweepSpec:
        """A sweep by name, with axes replaced or added by ``--space``."""
        if name not in self.sweeps:
            raise SpecError(f"no sweep {name!r}; there is {', '.join(sorted(self.sweeps))}")
        return self.sweeps[name].with_axes(spaces or [])

    def corpus(self, spec: RunSpec) -> Corpus:
        """The corpus, made if it isn't there."""
        return self.wiring.corpus(spec, lambda what: self.err.print(f"corpus: {what}"))

    # What is done.

    def carry_out(self, experiment: Experiment) -> tuple[GroupResult, ...]:
        """Run what is missing and bring MLflow up to date; results stay in the store whatever MLflow does."""
        store = self.wiring.store()
        plan = plan_json(experiment, store)
        self.err.print(
            f"{experiment.name}: {plan['configs']} configs x {len(experiment.seeds)} seeds, "
            f"{plan['cached']} stages done, {plan['to_run']} to run"
        )
        groups = run_experiment(
            experiment, store, self.wiring.engine, watching=lambda: watch(experiment, store, self.err)
        )
        self.view(experiment.name, groups)
        return groups

    def view(self, name: str, groups: Sequence[GroupResult]) -> None:
        """Bring MLflow up to date, or say why not."""
        try:
            self.wiring.tracker().sync(name, groups)
        except CaddieError as error:
            self.err.print(f"MLflow is behind: {error}\n  The results are in the store; the next run fills it in.")

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
