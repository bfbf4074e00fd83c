"""The commands. Each says what it needs, calls one use case, and prints for people or, with --json, for programs."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.data.shards import Corpus
from model.stages import Stage
from service.errors import CaddieError, RecordError, SpecError
from service.experiment import Experiment, best_honest, contend, lookup, run_experiment
from service.overview import flat_params, plan_json
from service.recording import Recorded, from_home, record_group
from service.results import GroupResult
from service.settings import read_settings
from service.spec import RunSpec, SweepSpec, parse_changes, parse_seeds
from service.stats import show, spread
from service.watch import watch
from service.wiring import Wiring

SEEDS = "42,1337,2024"
INTERRUPTED = 130

Seeds = Annotated[str, typer.Option("--seeds", help="Whole numbers with commas.")]
SweepSeeds = Annotated[str | None, typer.Option("--seeds", help="Other seeds than the sweep's own.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="PATH=VALUE, e.g. score.slot.lr=0.012 or train.minutes=10; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, progress on stderr.")]
NonRecord = Annotated[bool, typer.Option("--non-record", help="Assemble also when a rule is broken; says which.")]


class Commands:
    """The commands over given recipes and sweeps; progress goes to stderr, results to stdout."""

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
        """The base's honest score, and each trial's objective; over the sweep's own seeds unless others are given."""
        sweep.check(base)
        numbers = parse_seeds(seeds) if seeds else sweep.seeds
        corpus = self.corpus(base)
        contenders = [contend(base, {}, numbers, corpus, Stage.SLIDING, (Stage.SLIDING,))]
        for overlay in sweep.trials():
            contenders.append(contend(base.at(overlay), overlay, numbers, corpus, sweep.objective, (sweep.objective,)))
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

    def show_groups(self, experiment: Experiment, groups: Sequence[GroupResult]) -> None:
        """The closing table."""
        table = Table(title=experiment.name, title_justify="left")
        for name in ("config", "score", "seeds", "val_bpb, mean ± sd (n-1)", "vs base, paired"):
            table.add_column(name, justify="left" if name in ("config", "score") else "right")
        base = groups[0]
        for group in groups:
            paired = group.bpb.minus(base.bpb)
            versus = "" if group is base or not paired.n else f"{paired.mean:+.4f}"
            table.add_row(
                group.title, group.headline, f"{len(group.done)}/{len(group.seeds)}", spread(group.bpb), versus
            )
        self.out.print(table)
        for group in groups:
            for result in group.failed:
                what = Text.assemble(("failed", "red"), f" {group.title}, seed {result.seed}: {result.error}")
                self.out.print(what, soft_wrap=True)

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

    def show_record(self, recorded: Recorded) -> None:
        """Where the record is and what it says."""
        verdict = recorded.verdict
        state = "verified" if verdict.ok else "NOT verified"
        self.out.print(f"record    {from_home(recorded.folder)}  ({state})", soft_wrap=True)
        for line in verdict.mismatches:
            self.out.print(f"          {line}", soft_wrap=True)
        self.out.print(f"val_bpb   {show(recorded.group.bpb)}, {recorded.group.headline}, {recorded.group.title}")
        self.out.print("MLflow    make ui  (or: caddie ui)")

    def write_json(self, data: Any) -> None:
        """One document on stdout."""
        print(json.dumps(data, indent=1, allow_nan=False))


def groups_json(groups: Sequence[GroupResult]) -> list[dict[str, Any]]:
    """Groups for programs."""
    return [
        {
            "config": dict(group.overlay),
            "digest": group.spec.digest(),
            "score": str(group.headline),
            "n": len(group.done),
            "mean_bpb": group.bpb.mean if group.done else None,
            "sd_bpb": group.bpb.sd,
            "seeds": {
                str(seed): {
                    "status": str(result.status),
                    "val_bpb": group.bpb.values.get(seed),
                    "error": result.error or None,
                    "stages": {str(p.stage): p.key for p in result.plan},
                }
                for seed, result in group.seeds.items()
            },
        }
        for group in groups
    ]


def make_app(recipes: Mapping[str, str], sweeps: Mapping[str, SweepSpec]) -> typer.Typer:
    """The command line over given recipes and sweeps."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Experiments on language models under hard caps: seeds, sweeps, and records nobody can fault.\n\n"
        "Start with:  caddie sweep slot    (the main job: 3 seeds, a SLOT sweep, a verified record)\n\n"
        "Everything is kept below CADDIE_HOME (~/.caddie): finished stages are never computed twice.",
    )
    record, data = typer.Typer(no_args_is_help=True), typer.Typer(no_args_is_help=True)
    app.add_typer(record, name="record", help="Assemble and verify record folders.")
    app.add_typer(data, name="data", help="Prepare corpora: tokenizer and shards.")

    @app.command()
    def run(recipe: str, seeds: Seeds = SEEDS, set_: Sets = None, json_: Json = False) -> None:
        """Train, pack and score a recipe over seeds.

        Example: caddie run tiny --seeds 42,1337,2024 --set score.slot.lr=0.012
        """
        commands = Commands(recipes, sweeps)
        experiment = commands.run_of(commands.recipe(recipe, set_), set_, seeds)
        groups = commands.carry_out(experiment)
        if json_:
            commands.write_json({"name": experiment.name, "groups": groups_json(groups)})
        else:
            commands.show_groups(experiment, groups)
        if any(group.failed for group in groups):
            raise typer.Exit(1)

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
        commands = Commands(recipes, sweeps)
        spec = commands.sweep_named(name, space)
        base = commands.recipe(recipe or spec.recipe, set_)
        experiment = commands.sweep_of(spec, base, seeds)
        if plan:
            show_plan(commands, experiment, json_)
            return
        groups = commands.carry_out(experiment)
        if not json_:
            commands.show_groups(experiment, groups)
        recorded = None
        if with_record and not any(group.failed for group in groups):
            recorded = record_group(best_honest(groups), groups, commands.wiring, non_record=non_record)
            if not json_:
                commands.show_record(recorded)
        if json_:
            record_json = recorded and {"folder": str(recorded.folder), **recorded.verdict.to_json()}
            commands.write_json({"name": experiment.name, "groups": groups_json(groups), "record": record_json})
        if any(group.failed for group in groups) or (recorded and not recorded.verdict.ok):
            raise typer.Exit(1)

    @app.command()
    def plan(name: str, seeds: SweepSeeds = None, set_: Sets = None, json_: Json = False) -> None:
        """Show which stages a recipe or a sweep needs and which are done already. Runs nothing."""
        commands = Commands(recipes, sweeps)
        if name in sweeps:
            experiment = commands.sweep_of(sweeps[name], commands.recipe(sweeps[name].recipe, set_), seeds)
        else:
            experiment = commands.run_of(commands.recipe(name, set_), set_, seeds or SEEDS)
        show_plan(commands, experiment, json_)

    @app.command("recipes")
    def list_recipes(json_: Json = False) -> None:
        """List the recipes with their settings."""
        commands = Commands(recipes, sweeps)
        specs = {name: commands.recipe(name, None) for name in recipes}
        rows = [
            {
                "name": name,
                "notes": spec.notes,
                "parameters": spec.config.net.parameters,
                "artifact_cap_bytes": spec.budget.artifact_bytes,
                "gang": f"{spec.gang.ranks} x {spec.gang.device}",
                "scores": [str(stage) for stage in spec.scores],
                "settings": flat_params(spec),
            }
            for name, spec in specs.items()
        ]
        if json_:
            commands.write_json(rows)
            return
        table = Table()
        for column in ("name", "parameters", "cap", "gang", "scores", "notes"):
            table.add_column(column)
        for row in rows:
            table.add_row(
                row["name"],
                f"{row['parameters']:,}",
                f"{row['artifact_cap_bytes']:,}",
                row["gang"],
                " ".join(row["scores"]),
                row["notes"],
            )
        commands.out.print(table)

    @app.command()
    def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65_535)] = 5000) -> None:
        """Open MLflow's pages on the runs; Ctrl-C ends it."""
        serve_ui(Commands(recipes, sweeps), port)

    @data.command("prepare")
    def data_prepare(
        corpus: Annotated[str, typer.Option(help="An embedded corpus, or a .jsonl[.xz] file.")] = "pd_mix_v1",
        vocab_size: Annotated[int, typer.Option(help="Pieces of the tokenizer.")] = 1024,
        json_: Json = False,
    ) -> None:
        """Train the tokenizer, write the shards, and check the byte count against the decoded text."""
        from service.corpus.documents import find_documents
        from service.corpus.prepare import prepare

        commands = Commands(recipes, sweeps)
        tell = commands.err.print
        made = prepare(find_documents(corpus), vocab_size, commands.wiring.settings.corpora, lambda w: tell(w))
        if json_:
            manifest = json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))
            commands.write_json({"folder": str(made.folder), **manifest})
        else:
            commands.out.print(f"{made.name}: digest {made.digest}, {made.folder}", soft_wrap=True)

    @record.command("assemble")
    def record_assemble(
        recipe: str,
        seeds: Seeds = SEEDS,
        set_: Sets = None,
        out: Annotated[Path | None, typer.Option(help="The folder to make.")] = None,
        non_record: NonRecord = False,
        json_: Json = False,
    ) -> None:
        """Make a record folder of a recipe from finished stages; the best honest score is its headline."""
        commands = Commands(recipes, sweeps)
        experiment = commands.run_of(commands.recipe(recipe, set_), set_, seeds)
        groups = commands.finished(experiment)
        recorded = record_group(best_honest(groups), groups, commands.wiring, out=out, non_record=non_record)
        if json_:
            commands.write_json({"folder": str(recorded.folder), **recorded.verdict.to_json()})
        else:
            commands.show_record(recorded)
        if not recorded.verdict.ok:
            raise typer.Exit(1)

    @record.command("verify")
    def record_verify(folder: Path, json_: Json = False) -> None:
        """Recompute every number of a record folder from its logs; exit 1 when one doesn't match."""
        from service.record.verify import verify

        commands = Commands(recipes, sweeps)
        verdict = verify(folder)
        if json_:
            commands.write_json(verdict.to_json())
        else:
            for line in verdict.mismatches:
                commands.out.print(f"mismatch: {line}", soft_wrap=True)
            commands.out.print(
                f"{folder}: {'ok' if verdict.ok else 'NOT ok'}, {len(verdict.seeds)} seeds", soft_wrap=True
            )
        if not verdict.ok:
            raise typer.Exit(1)

    return app


def show_plan(commands: Commands, experiment: Experiment, as_json: bool) -> None:
    """What would run."""
    plan = plan_json(experiment, commands.wiring.store())
    if as_json:
        commands.write_json(plan)
        return
    table = Table(title=f"{plan['name']}: {plan['to_run']} stages to run, {plan['cached']} done", title_justify="left")
    for column in ("stage", "seed", "key", "state", "configs"):
        table.add_column(column)
    for row in plan["stages"]:
        state = "done" if row["cached"] else "to run"
        table.add_row(row["stage"], str(row["seed"]), row["key"], state, str(row["users"]))
    commands.out.print(table)


def serve_ui(commands: Commands, port: int) -> None:
    """MLflow's own server, in this process's place."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CaddieError(f"port {port} is in use ({error.strerror}); choose another with --port") from error
    settings = commands.wiring.settings
    settings.home.mkdir(parents=True, exist_ok=True)
    commands.err.print(f"MLflow on http://127.0.0.1:{port} (store: {settings.mlflow_uri}); Ctrl-C ends it")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", settings.mlflow_uri, "--default-artifact-root"]
    os.execvpe(command[0], [*command, settings.mlflow_artifacts.as_uri()], {**os.environ, **quiet})


def run_command(words: Sequence[str], recipes: Mapping[str, str], sweeps: Mapping[str, SweepSpec]) -> int:
    """Run one command line; 0 fine, 1 failed, 2 refused, 130 interrupted. No traceback for what a user can meet."""

    def terminate(*_: object) -> None:
        raise KeyboardInterrupt

    # `ray job stop` and `kill` send SIGTERM: end as Ctrl-C does, gangs first.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, terminate)
    code = 0
    try:
        make_app(recipes, sweeps)(args=list(words), prog_name="caddie")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except CaddieError as error:
        print(f"caddie: {error}", file=sys.stderr)
        code = 2 if isinstance(error, SpecError) else 1
    if code == INTERRUPTED:
        print("interrupted: finished stages are kept, the same command goes on from them", file=sys.stderr)
    return code
