"""``caddie record assemble`` and ``verify``: record folders, made from finished stages and checked from their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.cli.context import MakeCommands
from service.cli.options import SEEDS, Json, NonRecord, Seeds, Sets
from service.cli.show import record_json, show_record, write_json
from service.errors import SpecError
from service.experiment import best_honest
from service.record.field_verify import FieldVerdict, verify_any
from service.record.verify import Verdict
from service.recording import record_group
from service.stats import show


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
        pr: Annotated[
            Path | None,
            typer.Option(
                "--pr",
                help="A clone of the field's repository: write records/track_.../YYYY-MM-DD_NAME there, over nothing.",
            ),
        ] = None,
        name: Annotated[str | None, typer.Option(help="What the record is called; the recipe by default.")] = None,
        baseline_recipe: Annotated[
            str | None, typer.Option(help="List the differences from that recipe; each recipe names one by default.")
        ] = None,
        non_record: NonRecord = False,
        json_: Json = False,
    ) -> None:
        """Make a record folder of a recipe from finished stages; the best honest score is its headline.

        When a rule is broken, it is refused and every broken rule is named; --non-record makes it as what it is.
        """
        if pr and out:
            raise SpecError(f"--pr {pr} and --out {out}: --pr says where by itself; give one of them")
        commands = make()
        spec = commands.recipe(recipe, set_)
        baseline = commands.baseline(spec, baseline_recipe)
        groups = commands.finished(commands.run_of(spec, set_, seeds))
        recorded = record_group(
            best_honest(groups),
            groups,
            commands.wiring,
            baseline=baseline,
            name=name,
            out=out,
            pull_request=pr,
            non_record=non_record,
            tell=commands.err.print,
        )
        if json_:
            write_json(record_json(recorded))
        else:
            show_record(commands.out, recorded)
        if not recorded.verdict.ok:
            raise typer.Exit(1)


def _add_verify(record: typer.Typer, make: MakeCommands) -> None:
    @record.command()
    def verify(
        folders: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Record folders, ours or anyone's.")],
        json_: Json = False,
    ) -> None:
        """Recompute every number of record folders from their logs; exit 1 when one doesn't match.

        Anyone's folder of the field will do: its seeds, final scores, sizes and times are read from its logs, and every
        number in submission.json and in the README's tables is held against them. Each mismatch is one line.
        """
        out = make().out
        verdicts = {folder: verify_any(folder) for folder in folders}
        if json_:
            documents = {str(folder): verdict.to_json() for folder, verdict in verdicts.items()}
            write_json(documents if len(folders) > 1 else documents[str(folders[0])])
        else:
            for folder, verdict in verdicts.items():
                _show_verdict(out, folder, verdict)
        if not all(verdict.ok for verdict in verdicts.values()):
            raise typer.Exit(1)


def _show_verdict(out: Console, folder: Path, verdict: Verdict | FieldVerdict) -> None:
    for line in verdict.mismatches:
        out.print(f"mismatch: {line}", soft_wrap=True, markup=False)
    for line in verdict.notes if isinstance(verdict, FieldVerdict) else ():
        out.print(f"note: {line}", soft_wrap=True, markup=False)
    shown = f", val_bpb {show(verdict.reading.bpb, 8)}" if isinstance(verdict, FieldVerdict) and verdict.reading else ""
    state = "ok" if verdict.ok else "NOT ok"
    out.print(f"{folder}: {state}, {len(verdict.seeds)} seeds{shown}", soft_wrap=True, markup=False)
