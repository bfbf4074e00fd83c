"""The ``caddie`` command over given recipes and sweeps: joins the command modules, turns errors into exit codes."""

from __future__ import annotations

import ast
import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from service.cli.audits import add_audits
from service.cli.benches import add_benches
from service.cli.context import Commands
from service.cli.data import add_data
from service.cli.leaderboards import add_leaderboards
from service.cli.nodes import add_nodes
from service.cli.records import add_records
from service.cli.reports import add_reports
from service.cli.runs import add_runs
from service.cli.scripts import add_scripts
from service.cli.ui import add_ui
from service.cli.views import add_views
from service.cli.watching import add_watching
from service.errors import CaddieError, SpecError
from service.spec import SweepSpec

MODULES = (
    *(add_runs, add_audits, add_views, add_reports, add_watching, add_ui),
    *(add_records, add_leaderboards, add_scripts, add_data, add_benches, add_nodes),
)
"""What adds each module's commands; a new module's function goes here."""
INTERRUPTED = 130
LOOKING = ("logs", "top", "status")
"""Commands that carry nothing out, so that nothing goes on after Ctrl-C."""


def make_app(recipes: Mapping[str, str], sweeps: Mapping[str, SweepSpec], words: Sequence[str] = ()) -> typer.Typer:
    """The command line over given recipes and sweeps; ``words`` are what it is about to be given."""
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
        add(app, lambda: Commands(recipes, sweeps, words))
    return app


def script_words(words: Sequence[str]) -> list[str]:
    """``plan sweeps/slot_sweep.py`` as what that script runs, with ``--plan``; other command lines as they are.

    The script is read and not run: its words are those of the list that it hands to ``main``.

    Raises:
        SpecError: it can't be read, or hands over no sweep.
    """
    scripts = [word for word in words if word.endswith(".py")]
    if list(words[:1]) != ["plan"] or len(scripts) != 1:
        return list(words)
    try:
        tree = ast.parse(Path(scripts[0]).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise SpecError(f"{scripts[0]}: no script of a sweep ({error})") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.List):
            own = [part.value for part in node.elts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if len(own) > 1 and own[0] == "sweep":
                return [*own, "--plan", *(word for word in words[1:] if word != scripts[0])]
    raise SpecError(f"{scripts[0]}: it runs no sweep; name a recipe, a sweep, or a script that does")


def run_command(words: Sequence[str], recipes: Mapping[str, str], sweeps: Mapping[str, SweepSpec]) -> int:
    """Run one command line; 0 fine, 1 failed, 2 refused, 130 interrupted. No traceback for what a user can meet."""

    def terminate(*_: object) -> None:
        raise KeyboardInterrupt

    # `ray job stop` and `kill` send SIGTERM: end as Ctrl-C does, gangs first.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, terminate)
    code = 0
    try:
        asked = script_words(words)
        make_app(recipes, sweeps, asked)(args=asked, prog_name="caddie")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except CaddieError as error:
        print(f"caddie: {error}", file=sys.stderr)
        code = 2 if isinstance(error, SpecError) else 1
    if code == INTERRUPTED and not (words and words[0] in LOOKING):
        print("interrupted: finished stages are kept, the same command goes on from them", file=sys.stderr)
    return code
