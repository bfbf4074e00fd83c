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
Reuse = Annotated[
    list[str] | None,
    typer.Option("--reuse", help="KEY of a finished stage to use in place of the planned one; may be repeated."),
]
Price = Annotated[float | None, typer.Option("--price", help="USD of a node-hour, 8 GPUs; 20 by default.")]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="60usd, or GPU-hours as 3h: refuse a plan that costs more, launch nothing beyond."),
]
RaceFlag = Annotated[
    bool | None,
    typer.Option("--race/--no-race", help="Seed by seed, stop configs that can't win; the sweep's own say by default."),
]
Confirm = Annotated[
    str | None, typer.Option("--confirm", help="Fresh seeds that measure a race's winner again, or 'none'.")
]
How = Annotated[
    str | None,
    typer.Option("--search", help="grid, random, or tpe: Optuna proposes trials from the results of those before."),
]
Trials = Annotated[int | None, typer.Option("--trials", help="How many trials random draws, or tpe proposes.")]
NonRecord = Annotated[bool, typer.Option("--non-record", help="Assemble also when a rule is broken; says which.")]
