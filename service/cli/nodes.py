"""``caddie nodes``: how fast nodes were when they were looked at, and who is set apart."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.table import Table

from service.cli.context import MakeCommands
from service.cli.options import Json
from service.cli.show import write_json
from service.errors import SpecError
from service.nodes import APART_S
from service.watch import clock


def add_nodes(app: typer.Typer, make: MakeCommands) -> None:
    """Add the command of this module."""

    @app.command()
    def nodes(
        release: Annotated[str | None, typer.Option(help="Hire this node again.", metavar="NODE")] = None,
        json_: Json = False,
    ) -> None:
        """List the nodes that preflights have seen, and those set apart with the reason.

        A node is set apart for a day when it fails its preflight (GPUs, all-reduce, corpus files, disk), is slower than
        its kind, reports a broken GPU, or hangs twice in a run. CADDIE_PREFLIGHT=always|never|auto says which gangs
        begin with one; auto: those with GPUs.
        """
        commands = make()
        known = commands.wiring.nodes()
        apart, now_s = known.apart(), time.time()
        if release is not None and not known.release(release):
            raise SpecError(f"--release {release}: it isn't set apart; there is {', '.join(apart) or 'nobody'}")
        apart = known.apart()
        if json_:
            seen = [
                {"node": one.node, "kind": one.kind, "step_ms": one.step_ms, "age_s": now_s - one.at_s}
                for one in known.speeds()
            ]
            out = [{"node": one.node, "why": one.why, "age_s": now_s - one.since_s} for one in apart.values()]
            write_json({"seen": seen, "apart": out})
            return
        table = Table()
        for name in ("node", "kind", "step, ms", "seen before", "set apart"):
            table.add_column(name, justify="right" if name in ("step, ms", "seen before") else "left")
        speeds = known.speeds()
        for one in speeds:
            why = apart[one.node].why if one.node in apart else ""
            table.add_row(one.node, one.kind, f"{one.step_ms:.2f}", clock(max(0.0, now_s - one.at_s)), why)
        for gone in apart.values():
            if gone.node not in {one.node for one in speeds}:
                table.add_row(gone.node, "", "", "", gone.why)
        commands.out.print(table)
        if apart:
            commands.out.print(f"set apart for {APART_S / 3600:g} h; `caddie nodes --release NODE` hires one again")
