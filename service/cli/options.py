"""Options that several commands take, with their help texts."""

from __future__ import annotations

from typing import Annotated

import typer

SEEDS = "42,1337,2024"

Seeds = Annotated[str, typer.Option("--seeds", help="Whole numbers with commas.")]
SweepSeeds = Annotated[str | None, typer.Option("--seeds", help="Other seeds than the sweep's own.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="PATH=VALUE, e.g. score.slot.lr=0.012 or train.minutes=10; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, progress on stderr.")]
NonRecord = Annotated[bool, typer.Option("--non-record", help="Assemble also when a rule is broken; says which.")]
