"""``caddie record assemble`` and ``verify``: record folders, made from finished stages and checked from their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.context import MakeCommands
from service.cli.options import SEEDS, Json, NonRecord, Seeds, Sets
from service.cli.show import record_json, show_record, write_json
from service.experiment import best_honest
from service.record.verify import verify as verify_folder
from service.recording import record_group


def add_records(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    record = typer.Typer(no_args_is_help=True)
    app.add_typer(record, name="record", help="Assemble and verify record folders.")
    _add_assemble(record, make)
    _add_verify(record, make)


def _add_assemble(record: typer.Typer, make: MakeCommands) -> None:
    @record.command()
    def assemble(
        recipe: str,
        seeds: Seeds = SEEDS,
        set_: Sets = None,
        out: Annotated[Path | None, typer.Option(help="The folder to make.")] = None,
        non_record: NonRecord = False,
        json_: Json = False,
    ) -> None:
        """Make a record folder of a recipe from finished stages; the best honest score is its headline."""
        commands = make()
        groups = commands.finished(commands.run_of(commands.recipe(recipe, set_), set_, seeds))
        recorded = record_group(
            best_honest(groups), groups, commands.wiring, out=out, non_record=non_record, tell=commands.err.print
        )
        if json_:
            write_json(record_json(recorded))
        else:
            show_record(commands.out, recorded)
        if not recorded.verdict.ok:
            raise typer.Exit(1)


def _add_verify(record: typer.Typer, make: MakeCommands) -> None:
    @record.command()
    def verify(folder: Path, json_: Json = False) -> None:
        """Recompute every number of a record folder from its logs; exit 1 when one doesn't match."""
        out, verdict = make().out, verify_folder(folder)
        if json_:
            write_json(verdict.to_json())
        else:
            for line in verdict.mismatches:
                out.print(f"mismatch: {line}", soft_wrap=True)
            out.print(f"{folder}: {'ok' if verdict.ok else 'NOT ok'}, {len(verdict.seeds)} seeds", soft_wrap=True)
        if not verdict.ok:
            raise typer.Exit(1)
