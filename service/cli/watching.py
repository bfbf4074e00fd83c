"""``caddie logs`` and ``caddie top``: what a stage says and has said, and what is under way. They only read."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from service.cli.context import Commands, MakeCommands
from service.cli.options import Json
from service.cli.show import write_json
from service.errors import SpecError
from service.follow import follow
from service.logs import choose, entries_of, failure_lines, newest, shown
from service.notes import ExperimentNote
from service.top import CELLS, experiment_line, stage_cells, top_json

FOLLOW_S = 0.5
LOOK_S = 2.0
INTERRUPTED = 130
LEFT = ("stage", "of", "gang")


def add_watching(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    _add_logs(app, make)
    _add_top(app, make)


def _add_logs(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def logs(
        what: Annotated[
            str,
            typer.Argument(help="[EXPERIMENT:][STAGE:][SEED], or the beginning of a stage's key; else the newest."),
        ] = "",
        follow_: Annotated[
            bool, typer.Option("--follow", "-f", help="Go on as it grows, from stage to stage.")
        ] = False,
        attempt: Annotated[int | None, typer.Option(help="Another try than the newest, from 1.")] = None,
        json_: Json = False,
    ) -> None:
        """Show the log of a stage, what runs now or was tried last, and the traceback of a failed rank.

        Example: caddie logs slot-tiny:train:42 -f
        """
        commands = make()
        if follow_ and (json_ or attempt is not None):
            raise SpecError("-f shows what is written now: give it without --json and --attempt")
        if not commands.wiring.settings.home.is_dir():
            raise SpecError("nothing has been run here; start with: caddie sweep slot")
        if follow_:
            _follow(commands, what)
        else:
            _show(commands, what, attempt, json_)


def _show(commands: Commands, what: str, attempt: int | None, as_json: bool) -> None:
    store = commands.wiring.store()
    chosen = choose(what, entries_of(_notes(commands), store))
    one = shown(newest(chosen, store), store, attempt)
    if as_json:
        write_json(one.to_json())
        return
    shared = f", in the gang of {one.gang}" if one.gang else ""
    more = f"; {len(chosen)} stages fit, this was begun last" if len(chosen) > 1 else ""
    head = f"==> {one.entry.title}, attempt {one.attempt}, {one.state}{shared} ({one.log}){more}"
    commands.err.print(head, soft_wrap=True)
    typer.echo(one.text, nl=not one.text.endswith("\n") and bool(one.text))
    for line in failure_lines(one.failures):
        typer.echo(line)


def _follow(commands: Commands, what: str) -> None:
    """Until nobody goes on with what was chosen; a finished one is shown as it is."""
    store, notes = commands.wiring.store(), commands.wiring.notes()
    chosen = choose(what, entries_of(_notes(commands), store))
    note = chosen[0].note

    def alive() -> bool:
        return note is not None and notes.alive(note) and not {one.key for one in chosen} <= store.published()

    if not alive() and not {one.key for one in chosen} & store.running().keys():
        _show(commands, what, None, False)
        return
    try:
        for piece in follow(chosen, store, alive, lambda: time.sleep(FOLLOW_S)):
            typer.echo(piece, nl=False)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _add_top(app: typer.Typer, make: MakeCommands) -> None:
    @app.command()
    def top(
        once: Annotated[bool, typer.Option("--once", help="Once and plainly, as when this is no terminal.")] = False,
        json_: Json = False,
    ) -> None:
        """Show what is under way: each running stage with how far it is, and what its experiment has spent."""
        commands = make()
        if json_:
            write_json(_look(commands))
        elif once or not commands.out.is_terminal:
            commands.out.print(_table(commands, _look(commands)), soft_wrap=True)
        else:
            # Ctrl-C is how one leaves it.
            with contextlib.suppress(KeyboardInterrupt), Live(console=commands.out, auto_refresh=False) as live:
                while True:
                    live.update(_table(commands, _look(commands)), refresh=True)
                    time.sleep(LOOK_S)


def _look(commands: Commands) -> dict[str, Any]:
    price = commands.price()
    if not commands.wiring.settings.home.is_dir():
        return {"experiments": [], "running": [], "node_usd_per_hour": price.node_usd_per_hour}
    return top_json(_notes(commands), commands.wiring.store(), commands.wiring.notes().alive, price)


def _table(commands: Commands, data: dict[str, Any]) -> Group:
    lines = [experiment_line(row, commands.price()) for row in data["experiments"]]
    if not data["running"]:
        return Group(*lines, "no stage runs now" if lines else "nothing is under way; start with: caddie sweep slot")
    table = Table(box=None, pad_edge=False)
    for name in CELLS:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for row in data["running"]:
        table.add_row(*stage_cells(row))
    return Group(*lines, table)


def _notes(commands: Commands) -> list[ExperimentNote]:
    notes, strange = commands.wiring.notes().read()
    for line in strange:
        commands.err.print(f"left out {line}", soft_wrap=True)
    return notes
