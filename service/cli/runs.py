"""``caddie run``, ``sweep``, ``plan`` and ``recipes``: experiments, carried out or only planned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from service.announce import Ending, announced, errors_of
from service.cli.context import Commands, MakeCommands
from service.cli.options import (
    SEEDS,
    Budget,
    Confirm,
    How,
    Json,
    NonRecord,
    Price,
    RaceFlag,
    Reuse,
    Seeds,
    Sets,
    SweepSeeds,
    Trials,
)
from service.cli.show import (
    groups_json,
    race_json,
    recipes_json,
    record_json,
    search_json,
    show_groups,
    show_plan,
    show_recipes,
    show_summary,
    write_json,
)
from service.errors import SpecError
from service.experiment import Experiment, best_honest
from service.recording import Recorded, from_home, record_group
from service.results import GroupResult
from service.summary import Start


def add_runs(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    for add in (_add_run, _add_sweep, _add_plan, _add_recipes):
        add(app, make)


def _add_run(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def run(
        recipe: str,
        seeds: Seeds = SEEDS,
        set_: Sets = None,
        reuse: Reuse = None,
        budget: Budget = None,
        price: Price = None,
        json_: Json = False,
    ) -> None:
        """Train, pack and score a recipe over seeds.

        Example: caddie run tiny --seeds 42,1337,2024 --set score.slot.lr=0.012
        """
        commands = make()
        experiment = commands.run_of(commands.recipe(recipe, set_), set_, seeds, reuse)
        with _ending(commands, experiment, price) as (start, ending):
            groups = commands.carry_out(experiment, budget, price)
            ending.tell(start.summary(groups), errors_of(groups))
        if json_:
            write_json({"name": experiment.name, "groups": groups_json(groups), "summary": ending.summary})
        else:
            show_groups(commands.out, experiment, groups)
            show_summary(commands.out, ending.summary)
        if any(group.failed for group in groups):
            raise typer.Exit(1)


def _add_sweep(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def sweep(
        name: str,
        recipe: Annotated[str | None, typer.Option(help="Another recipe than the sweep's own.")] = None,
        seeds: SweepSeeds = None,
        set_: Sets = None,
        space: Annotated[
            list[str] | None,
            typer.Option(
                "--space", help="PATH=V1,V2,... or PATH=LOW..HIGH[:log or :step=S]: replace or add an axis; repeatable."
            ),
        ] = None,
        search: How = None,
        trials: Trials = None,
        plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and run nothing.")] = False,
        with_record: Annotated[bool, typer.Option("--record/--no-record", help="Assemble and verify.")] = True,
        non_record: NonRecord = False,
        reuse: Reuse = None,
        budget: Budget = None,
        price: Price = None,
        race: RaceFlag = None,
        confirm: Confirm = None,
        json_: Json = False,
    ) -> None:
        """Compare the configs of a sweep over seeds; ends with a verified record of the best honest one.

        Example: caddie sweep slot --space score.slot.lr=0.004,0.012 --seeds 42,1337,2024
        """
        commands = make()
        spec = commands.sweep_named(name, space).with_search(search, trials)
        base = commands.recipe(recipe or spec.recipe, set_)
        experiment = commands.sweep_of(spec, base, seeds, reuse, race, confirm)
        if plan:
            _tell_plan(commands, experiment, price, json_)
            return
        if reuse and with_record:
            raise SpecError("--reuse: a record must be what its own config computed; give --no-record")
        recorded = None
        with _ending(commands, experiment, price) as (start, ending):
            groups = commands.carry_out(experiment, budget, price)
            if not json_:
                show_groups(commands.out, experiment, groups)
            failed = any(group.failed or (group.confirmed and group.confirmed.failed) for group in groups)
            ending.tell(start.summary(groups), errors_of(groups))
            try:
                if with_record and not failed:
                    recorded = _record_best(commands, groups, non_record)
                    verdict = recorded.verdict
                    folder = from_home(recorded.folder)
                    ending.tell(start.summary(groups, folder, verdict.ok), [] if verdict.ok else verdict.mismatches)
            finally:  # what was measured is told also where no record comes of it
                if not json_:
                    show_summary(commands.out, ending.summary, recorded.verdict.mismatches if recorded else ())
        if json_:
            record = recorded and record_json(recorded)
            race_of = {"race": race_json(experiment, groups)} if experiment.race else {}
            search_of = {"search": search_json(experiment, groups)} if experiment.sampling else {}
            document = {"name": experiment.name, "groups": groups_json(groups), **race_of, **search_of}
            write_json(document | {"record": record, "summary": ending.summary})
        if failed or (recorded and not recorded.verdict.ok):
            raise typer.Exit(1)


@contextlib.contextmanager
def _ending(commands: Commands, experiment: Experiment, price: float | None) -> Iterator[tuple[Start, Ending]]:
    """From its beginning to its end the webhook is told of, with what the summary counts from."""
    start = Start(experiment, commands.wiring.store(), commands.price(price))
    announcer = commands.wiring.announcer(lambda line: commands.err.print(line, soft_wrap=True))
    with announced(announcer, experiment.name) as ending:
        yield start, ending


def _record_best(commands: Commands, groups: Sequence[GroupResult], non_record: bool) -> Recorded:
    """The record of the best honest group, of a race's winner over the fresh seeds."""
    won = next((group for group in groups if group.won), None)
    chosen = (won.confirmed or won) if won else best_honest(groups)
    baseline = commands.baseline(chosen.spec)
    tell = commands.err.print
    return record_group(chosen, groups, commands.wiring, baseline=baseline, non_record=non_record, tell=tell)


def _add_plan(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def plan(
        name: str,
        seeds: SweepSeeds = None,
        set_: Sets = None,
        reuse: Reuse = None,
        price: Price = None,
        json_: Json = False,
    ) -> None:
        """Show which stages a recipe or a sweep needs, why each is or isn't done, and what it costs. Runs nothing.

        NAME is a recipe, a sweep, or a sweep's script: caddie plan sweeps/slot_sweep.py
        """
        commands = make()
        if name in commands.sweeps:
            spec = commands.sweeps[name]
            experiment = commands.sweep_of(spec, commands.recipe(spec.recipe, set_), seeds, reuse)
        else:
            experiment = commands.run_of(commands.recipe(name, set_), set_, seeds or SEEDS, reuse)
        _tell_plan(commands, experiment, price, json_)


def _tell_plan(commands: Commands, experiment: Experiment, price: float | None, as_json: bool) -> None:
    plan = commands.planned(experiment, price)
    if as_json:
        write_json(plan.to_json())
    else:
        show_plan(commands.out, plan)


def _add_recipes(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def recipes(json_: Json = False) -> None:
        """List the recipes with their settings."""
        commands = make()
        rows = recipes_json({name: commands.recipe_as_written(name) for name in commands.recipes})
        if json_:
            write_json(rows)
        else:
            show_recipes(commands.out, rows)
