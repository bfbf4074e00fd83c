"""``caddie run``, ``sweep``, ``plan`` and ``recipes``: experiments, carried out or only planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from service.cli.context import Commands, MakeCommands
from service.cli.options import SEEDS, Json, NonRecord, Seeds, Sets, SweepSeeds
from service.cli.show import (
    groups_json,
    recipes_json,
    record_json,
    show_groups,
    show_plan,
    show_recipes,
    show_record,
    write_json,
)
from service.experiment import Experiment, best_honest
from service.overview import plan_json
from service.recording import Recorded, record_group
from service.results import GroupResult


def add_runs(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    for add in (_add_run, _add_sweep, _add_plan, _add_recipes):
        add(app, make)


def _add_run(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def run(recipe: str, seeds: Seeds = SEEDS, set_: Sets = None, json_: Json = False) -> None:
        """Train, pack and score a recipe over seeds.

        Example: caddie run tiny --seeds 42,1337,2024 --set score.slot.lr=0.012
        """
        commands = make()
        experiment = commands.run_of(commands.recipe(recipe, set_), set_, seeds)
        groups = commands.carry_out(experiment)
        if json_:
            write_json({"name": experiment.name, "groups": groups_json(groups)})
        else:
            show_groups(commands.out, experiment, groups)
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
            list[str] | None, typer.Option("--space", help="PATH=V1,V2,...: replace or add an axis; may be repeated.")
        ] = None,
        plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and run nothing.")] = False,
        with_record: Annotated[bool, typer.Option("--record/--no-record", help="Assemble and verify.")] = True,
        non_record: NonRecord = False,
        json_: Json = False,
    ) -> None:
        """Compare the configs of a sweep over seeds; ends with a verified record of the best honest one.

        Example: caddie sweep slot --space score.slot.lr=0.004,0.012 --seeds 42,1337,2024
        """
        commands = make()
        spec = commands.sweep_named(name, space)
        experiment = commands.sweep_of(spec, commands.recipe(recipe or spec.recipe, set_), seeds)
        if plan:
            _tell_plan(commands, experiment, json_)
            return
        groups = commands.carry_out(experiment)
        if not json_:
            show_groups(commands.out, experiment, groups)
        failed = any(group.failed for group in groups)
        recorded = _record_best(commands, groups, non_record, json_) if with_record and not failed else None
        if json_:
            record = recorded and record_json(recorded)
            write_json({"name": experiment.name, "groups": groups_json(groups), "record": record})
        if failed or (recorded and not recorded.verdict.ok):
            raise typer.Exit(1)


def _record_best(commands: Commands, groups: Sequence[GroupResult], non_record: bool, as_json: bool) -> Recorded:
    """The record of the best honest group, shown unless it goes into a document."""
    recorded = record_group(
        best_honest(groups), groups, commands.wiring, non_record=non_record, tell=commands.err.print
    )
    if not as_json:
        show_record(commands.out, recorded)
    return recorded


def _add_plan(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def plan(name: str, seeds: SweepSeeds = None, set_: Sets = None, json_: Json = False) -> None:
        """Show which stages a recipe or a sweep needs and which are done already. Runs nothing."""
        commands = make()
        if name in commands.sweeps:
            spec = commands.sweeps[name]
            experiment = commands.sweep_of(spec, commands.recipe(spec.recipe, set_), seeds)
        else:
            experiment = commands.run_of(commands.recipe(name, set_), set_, seeds or SEEDS)
        _tell_plan(commands, experiment, json_)


def _tell_plan(commands: Commands, experiment: Experiment, as_json: bool) -> None:
    plan = plan_json(experiment, commands.wiring.store())
    if as_json:
        write_json(plan)
    else:
        show_plan(commands.out, plan)


def _add_recipes(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def recipes(json_: Json = False) -> None:
        """List the recipes with their settings."""
        commands = make()
        rows = recipes_json({name: commands.recipe(name, None) for name in commands.recipes})
        if json_:
            write_json(rows)
        else:
            show_recipes(commands.out, rows)
