"""The ``caddie`` command over given recipes and sweeps: joins the command modules, turns errors into exit codes."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence

import typer

from service.cli.audits import add_audits
from service.cli.benches import add_benches
from service.cli.context import Commands
from service.cli.data import add_data
from service.cli.records import add_records
from service.cli.runs import add_runs
from service.cli.ui import add_ui
from service.errors import CaddieError, SpecError
from service.spec import SweepSpec

MODULES = (add_runs, add_audits, add_ui, add_records, add_data, add_benches)
"""What adds each module's commands; a new module's function goes here."""
INTERRUPTED = 130


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
    for add in MODULES:
        add(app, lambda: Commands(recipes, sweeps))
    return app


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
