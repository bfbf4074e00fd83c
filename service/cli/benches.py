"""``caddie bench``: how fast the hot paths are here, as paired ratios."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated

import typer
from rich.table import Table

from service.cli.context import MakeCommands
from service.cli.options import Json
from service.cli.show import write_json
from service.errors import CaddieError

MEANING = {
    "speedup_t1024_s96": "times faster than the plain implementation, T=1024 S=96",
    "speedup_t2048_s64": "times faster than the plain implementation, T=2048 S=64",
    "max_abs_diff_nats": "largest difference from it, nats per token",
    "overhead_vs_forward": "SLOT-24 on scored positions, beside the sliding pass",
    "overhead_context_vs_forward": "SLOT-24 on all context, beside the sliding pass",
    "grid16_vs_one": "16 (lr, steps) configurations, times one",
}


def add_benches(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    bench = typer.Typer(no_args_is_help=True)
    app.add_typer(bench, name="bench", help="Measure the hot paths here, as paired ratios in one process.")

    @bench.callback()
    def group() -> None:
        """Keeps `slot` a command of its own while it is the only one."""

    @bench.command()
    def slot(
        threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
        pairs: Annotated[int, typer.Option(help="How often both sides are timed.", min=1)] = 5,
        json_: Json = False,
    ) -> None:
        """SLOT's engine against the plain implementation of the field's scripts, and beside the network's forward.

        Takes some minutes and the whole machine: with anything else running the ratios mean little.
        """
        commands = make()
        # A process of its own: the service has no torch. Its progress goes straight to our stderr.
        command = [sys.executable, "-m", "model.bench", "slot", "--threads", str(threads), "--pairs", str(pairs)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            raise CaddieError(f"the bench ended with {ended.returncode}")
        figures = json.loads(ended.stdout)
        if json_:
            write_json(figures)
            return
        table = Table(title=f"SLOT engine, {threads} threads, torch {figures['where']['torch']}", title_justify="left")
        for name in ("figure", "value", "meaning"):
            table.add_column(name, justify="right" if name == "value" else "left")
        for name, meaning in MEANING.items():
            table.add_row(name, f"{figures[name]:.3g}", meaning)
        commands.out.print(table)
