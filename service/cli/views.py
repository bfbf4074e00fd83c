"""``caddie sync`` and ``caddie status``: the view rebuilt from the store, and where everything stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.context import Commands, MakeCommands
from service.cli.options import Json
from service.cli.show import write_json
from service.errors import SpecError
from service.logs import short
from service.notes import ExperimentNote, labels_of
from service.status import status_json
from service.view import view_of
from service.watch import now_and_then

SHOWN = 20
"""Experiments that people see; programs see all."""
SHOWN_ERRORS = 5


def add_views(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""

    @app.command()
    def sync(
        name: Annotated[str | None, typer.Argument(help="Only experiments of this name, e.g. slot-tiny.")] = None,
        baseline: Annotated[
            str | None, typer.Option(help="Title of the config to compare with from now on; 'base' is the default.")
        ] = None,
        json_: Json = False,
    ) -> None:
        """Rebuild MLflow's runs from the store and the notes of what was run. Twice changes nothing.

        Example: caddie sync slot-tiny --baseline "lr=0.004 steps=4"
        """
        commands = make()
        rows = _sync(commands, name, baseline)
        if json_:
            write_json({"uri": commands.wiring.settings.mlflow_uri, "experiments": rows})
        else:
            for row in rows:
                counts = f"{row['created']} created, {row['changed']} changed, {row['unchanged']} as they were"
                commands.out.print(f"{row['name']}: {row['configs']} configs; runs: {counts}", soft_wrap=True)
            if not rows:
                commands.out.print("no experiment has been run here")

    @app.command()
    def status(json_: Json = False) -> None:
        """Show experiments with their seeds and best config, and the stages that run now. Only reads."""
        commands = make()
        notes = _notes(commands)
        there = commands.wiring.settings.home.is_dir() or commands.wiring.settings.store_url
        store = commands.wiring.store() if there else None
        data = status_json(notes, store, commands.wiring.notes().alive) if store else {"experiments": [], "running": []}
        if json_:
            write_json(data)
        else:
            _show_status(commands, data)


def _notes(commands: Commands) -> list[ExperimentNote]:
    notes, strange = commands.wiring.notes().read()
    for line in strange:
        commands.err.print(f"left out {line}", soft_wrap=True)
    return notes


def _sync(commands: Commands, only: str | None, baseline: str | None) -> list[dict[str, Any]]:
    """Bring every page up to date; one row a page."""
    folder, notes = commands.wiring.notes(), _notes(commands)
    if only is not None:
        names = sorted({note.name for note in notes})
        if only not in names:
            raise SpecError(f"no experiment {only!r} was run here; there is {', '.join(names) or 'none'}")
        notes = [note for note in notes if note.name == only]
    if baseline is not None:
        notes = [folder.write(note) for note in _compared(notes, baseline)]
    rows = []
    for name in dict.fromkeys(note.name for note in notes):
        with folder.showing():
            view = view_of([note for note in notes if note.name == name], commands.wiring.store(), folder.alive)
            done = commands.wiring.tracker().sync(view, now_and_then(commands.err, name))
        counts = {"created": done.created, "changed": done.changed, "unchanged": done.unchanged}
        rows.append({"name": name, "configs": len(view.configs), **counts})
    return rows


def _compared(notes: Sequence[ExperimentNote], baseline: str) -> list[ExperimentNote]:
    """The notes with another baseline, those that have a config of that title."""
    found, known = [], set()
    for note in notes:
        titles = {*labels_of(note.configs), *(config.title for config in note.configs)}
        known |= titles
        found.append(replace(note, baseline=baseline) if baseline in titles else note)
    if baseline not in known:
        raise SpecError(f"--baseline {baseline!r}: no config of that title; there is {', '.join(sorted(known))}")
    return found


def _show_status(commands: Commands, data: Mapping[str, Any]) -> None:
    if not data["experiments"] and not data["running"]:
        commands.out.print("nothing has been run here; start with: caddie sweep slot")
        return
    table = Table()
    for column in ("experiment", "state", "begun", "configs", "seeds", "best config", "val_bpb"):
        table.add_column(column, justify="right" if column in ("configs", "seeds", "val_bpb") else "left")
    for row in data["experiments"][:SHOWN]:
        best, seeds = row["best"], row["seeds"]
        spread = f" ± {best['sd_bpb']:.4f}" if best and best["sd_bpb"] is not None else ""
        table.add_row(
            row["name"],
            row["state"],
            f"{since(row['begun_s'])} ago",
            str(row["configs"]),
            f"{seeds['done']}/{seeds['total']}" + (f" ({seeds['failed']} failed)" if seeds["failed"] else ""),
            (best["config"][:40] + (" (leaks)" if best["leaks"] else "")) if best else "-",
            f"{best['mean_bpb']:.4f}{spread}" if best else "-",
        )
    commands.out.print(table)
    failed = [(row["name"], one) for row in data["experiments"][:SHOWN] for one in row["errors"]]
    for name, one in failed[:SHOWN_ERRORS]:
        where = f" (caddie logs {short(one['key'])})" if one["key"] else ""
        error = (one["error"].splitlines() or [""])[0]
        commands.out.print(f"failed: {name}, {one['config']}, seed {one['seed']}: {error}{where}", soft_wrap=True)
    if len(failed) > SHOWN_ERRORS:
        commands.out.print(f"and {len(failed) - SHOWN_ERRORS} more that failed: --json lists them all")
    if len(data["experiments"]) > SHOWN:
        commands.out.print(f"and {len(data['experiments']) - SHOWN} older ones: --json lists them all")
    for row in data["running"]:
        seed = "" if row["seed"] is None else f" seed {row['seed']}"
        whose = f" of {row['experiment']}" if row["experiment"] else ""
        age = "" if row["age_s"] is None else f", {since(row['age_s'])}"
        said = row["last_line"] or "..."
        commands.out.print(f"running: {short(row['key'])}{seed}{whose}{age}: {said}", soft_wrap=True)
    if data["running"]:
        commands.out.print(f"more: caddie top, caddie logs {short(data['running'][0]['key'])} -f")
    else:
        commands.out.print("no stage runs now")


def since(seconds: float) -> str:
    """``5 s``, ``12 min``, ``3 h``, ``4 d``: to one unit, rounded down."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
