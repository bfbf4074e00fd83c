"""``caddie script run`` and ``script sweep``: anybody's training script under the same gang, store and view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.context import Commands, MakeCommands
from service.cli.options import SEEDS, Json, Seeds
from service.cli.show import groups_json, show_groups, write_json
from service.errors import SpecError
from service.experiment import Experiment
from service.results import GroupResult
from service.scripts import parse_env, parse_space, read_source, script_experiment
from service.spec import Budget, GangShape, parse_seeds

Where = Annotated[Path, typer.Argument(metavar="PATH", help="The script, e.g. records/.../train_gpt.py.")]
Env = Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE that the script is given; may be repeated.")]
Data = Annotated[Path | None, typer.Option(help="Folder that the script sees as ./data; by default the one beside it.")]
Ranks = Annotated[int, typer.Option(help="Processes of a gang.")]
Threads = Annotated[int, typer.Option(help="CPU threads of each.")]
Device = Annotated[str, typer.Option(help="cuda or cpu: what a gang reserves.")]
TrainCap = Annotated[float, typer.Option("--train-cap", help="Seconds of training that the rules allow.")]
EvalCap = Annotated[float, typer.Option("--eval-cap", help="Seconds of evaluation.")]
Slack = Annotated[float, typer.Option(help="Seconds beyond both caps after which the gang is ended.")]


def add_scripts(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    script = typer.Typer(no_args_is_help=True)
    app.add_typer(script, name="script", help="Run anybody's train_gpt.py over seeds.")
    _add_run(script, make)
    _add_sweep(script, make)


def _add_run(script: typer.Typer, make: MakeCommands) -> None:
    @script.command()
    def run(
        path: Where,
        seeds: Seeds = SEEDS,
        env: Env = None,
        data: Data = None,
        ranks: Ranks = 8,
        threads: Threads = 4,
        device: Device = "cuda",
        train_cap: TrainCap = 600.0,
        eval_cap: EvalCap = 600.0,
        slack: Slack = 600.0,
        json_: Json = False,
    ) -> None:
        """Run a script over seeds, each from a fresh copy; its scores are read from its log.

        A seed is found again as long as script, variables, data and gang are the same.
        Example: caddie script run path/train_gpt.py --seeds 42,314,999 --env QK_GAIN_INIT=5.25
        """
        commands = make()
        gang, budget = _shape(ranks, threads, device), _budget(train_cap, eval_cap, slack)
        experiment = script_experiment(read_source(path, data), parse_seeds(seeds), parse_env(env or []), gang, budget)
        _carry_out(commands, experiment, budget, json_)


def _add_sweep(script: typer.Typer, make: MakeCommands) -> None:
    @script.command()
    def sweep(
        path: Where,
        space: Annotated[list[str], typer.Option("--space", help="NAME=V1,V2,...: an axis; may be repeated.")],
        seeds: Seeds = SEEDS,
        env: Env = None,
        data: Data = None,
        ranks: Ranks = 8,
        threads: Threads = 4,
        device: Device = "cuda",
        train_cap: TrainCap = 600.0,
        eval_cap: EvalCap = 600.0,
        slack: Slack = 600.0,
        json_: Json = False,
    ) -> None:
        """Compare a script's variables over seeds: the script as it is, and every point of the axes' product.

        Example: caddie script sweep path/train_gpt.py --space QK_GAIN_INIT=4.0,5.0,5.25
        """
        commands = make()
        gang, budget = _shape(ranks, threads, device), _budget(train_cap, eval_cap, slack)
        source, points = read_source(path, data), parse_space(space)
        experiment = script_experiment(source, parse_seeds(seeds), parse_env(env or []), gang, budget, points)
        _carry_out(commands, experiment, budget, json_)


def _shape(ranks: int, threads: int, device: str) -> GangShape:
    try:
        return GangShape(ranks=ranks, threads=threads, device=device)  # type: ignore[arg-type]
    except ValueError as error:
        raise SpecError(str(error)) from error


def _budget(train_cap: float, eval_cap: float, slack: float) -> Budget:
    try:
        return Budget(train_s=train_cap, eval_s=eval_cap, slack_s=slack)
    except ValueError as error:
        raise SpecError(str(error)) from error


def _carry_out(commands: Commands, experiment: Experiment, budget: Budget, json_: bool) -> None:
    groups = commands.carry_out(experiment)
    over = [line for group in groups for line in over_caps(group, budget)]
    if json_:
        write_json({"name": experiment.name, "groups": groups_json(groups), "over_caps": over})
    else:
        show_groups(commands.out, experiment, groups)
        for line in over:
            commands.out.print(f"over a cap: {line}", soft_wrap=True)
    if over or any(group.failed for group in groups):
        raise typer.Exit(1)


def over_caps(group: GroupResult, budget: Budget) -> list[str]:
    """A line for every seed that its own log says was over a cap; the step in which training's clock ran out counts as
    within."""
    found = []
    for seed, result in group.seeds.items():
        for report in result.reports.values():
            metrics = report.metrics
            slack = 3 * metrics.get("step_avg_ms", 0.0) / 1000
            caps = {"train_s": budget.train_s + slack, "eval_s": budget.eval_s, "artifact_bytes": budget.artifact_bytes}
            shown = {"train_s": budget.train_s, "eval_s": budget.eval_s, "artifact_bytes": budget.artifact_bytes}
            found += [
                f"{group.title}, seed {seed}: {name} is {metrics[name]:,.10g}, the cap is {shown[name]:,.10g}"
                for name, cap in caps.items()
                if metrics.get(name, 0.0) > cap
            ]
    return found
