"""``caddie report``: one experiment as one page of HTML that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.context import MakeCommands
from service.cli.options import Json, Price
from service.cli.show import write_json
from service.recording import from_home
from service.report.facts import find_note, report_of


def add_reports(app: typer.Typer, make: MakeCommands) -> None:
    """Add the command of this module."""

    @app.command()
    def report(
        sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="An experiment, e.g. slot-tiny; the newest of it.")],
        out: Annotated[Path | None, typer.Option(help="The file; NAME-ID.html below CADDIE_HOME by default.")] = None,
        price: Price = None,
        json_: Json = False,
    ) -> None:
        """Write one HTML page of an experiment: winner, configs, seeds, figures, gates, money. Only reads the store.

        It works while the experiment runs, too, and says what isn't finished. NAME-ID names an older one.
        Example: caddie report slot-tiny --out slot.html
        """
        from service.report.page import page_of, write_page

        commands = make()
        settings, folder = commands.wiring.settings, commands.wiring.notes()
        notes, strange = folder.read()
        for line in strange:
            commands.err.print(f"left out {line}", soft_wrap=True)
        note, older = find_note(notes, sweep)
        found = report_of(note, commands.wiring.store(), folder.alive, commands.price(price), older)
        path = out or settings.home / "reports" / f"{note.name}-{note.id}.html"
        write_page(page_of(found), path)
        if json_:
            write_json({"path": str(path.resolve())})
        else:
            size = path.stat().st_size
            commands.out.print(f"report    {from_home(path.resolve())}  ({size:,} bytes)", soft_wrap=True)
