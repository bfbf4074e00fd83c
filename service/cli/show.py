"""What commands print: tables for people, and the same as data for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.codec import encode
from service.experiment import Experiment
from service.overview import flat_params
from service.recording import Recorded, from_home
from service.results import GroupResult
from service.spec import RunSpec
from service.stats import show, spread


def write_json(data: Any) -> None:
    """One document on stdout."""
    print(json.dumps(data, indent=1, allow_nan=False))


def groups_json(groups: Sequence[GroupResult]) -> list[dict[str, Any]]:
    """Groups for programs."""
    return [
        {
            "config": encode(dict(group.overlay)),
            "digest": group.spec.digest(),
            "score": str(group.headline),
            "n": len(group.done),
            "mean_bpb": group.bpb.mean if group.done else None,
            "sd_bpb": group.bpb.sd,
            "vs_base": paired_json(group, groups[0]),
            "seeds": {
                str(seed): {
                    "status": str(result.status),
                    "val_bpb": group.bpb.values.get(seed),
                    "error": result.error or None,
                    "stages": {str(p.stage): p.key for p in result.plan},
                }
                for seed, result in group.seeds.items()
            },
        }
        for group in groups
    ]


def paired_json(group: GroupResult, base: GroupResult) -> dict[str, Any] | None:
    """The difference to the base on the seeds both have, with half its 95 % confidence interval."""
    paired = group.bpb.minus(base.bpb)
    if group is base or not paired.n:
        return None
    return {"n": paired.n, "mean_bpb": paired.mean, "sd_bpb": paired.sd, "ci95_bpb": paired.ci95}


def show_groups(out: Console, experiment: Experiment, groups: Sequence[GroupResult]) -> None:
    """The closing table, and every failed seed's error."""
    table = Table(title=experiment.name, title_justify="left")
    for name in ("config", "score", "seeds", "val_bpb, mean ± sd (n-1)", "vs base, paired (95 % CI)"):
        table.add_column(name, justify="left" if name in ("config", "score") else "right")
    base = groups[0]
    for group in groups:
        paired = group.bpb.minus(base.bpb)
        interval = f" ± {paired.ci95:.4f}" if paired.ci95 is not None else ""
        versus = "" if group is base or not paired.n else f"{paired.mean:+.4f}{interval}"
        table.add_row(group.title, group.headline, f"{len(group.done)}/{len(group.seeds)}", spread(group.bpb), versus)
    out.print(table)
    for group in groups:
        for result in group.failed:
            what = Text.assemble(("failed", "red"), f" {group.title}, seed {result.seed}: {result.error}")
            out.print(what, soft_wrap=True)


def show_plan(out: Console, plan: Mapping[str, Any]) -> None:
    """What would run, of :func:`service.overview.plan_json`."""
    table = Table(title=f"{plan['name']}: {plan['to_run']} stages to run, {plan['cached']} done", title_justify="left")
    for column in ("stage", "seed", "key", "state", "configs"):
        table.add_column(column)
    for row in plan["stages"]:
        state = "done" if row["cached"] else "to run"
        table.add_row(row["stage"], str(row["seed"]), row["key"], state, str(row["users"]))
    out.print(table)


def record_json(recorded: Recorded) -> dict[str, Any]:
    """A record for programs: where it is, and its verdict."""
    return {"folder": str(recorded.folder), **recorded.verdict.to_json()}


def show_record(out: Console, recorded: Recorded) -> None:
    """Where the record is and what it says."""
    verdict = recorded.verdict
    state = "verified" if verdict.ok else "NOT verified"
    out.print(f"record    {from_home(recorded.folder)}  ({state})", soft_wrap=True)
    for line in verdict.mismatches:
        out.print(f"          {line}", soft_wrap=True)
    out.print(f"val_bpb   {show(recorded.group.bpb)}, {recorded.group.headline}, {recorded.group.title}")
    out.print("MLflow    make ui  (or: caddie ui)")


def recipes_json(specs: Mapping[str, RunSpec]) -> list[dict[str, Any]]:
    """Recipes for programs, each with every setting."""
    return [
        {
            "name": name,
            "notes": spec.notes,
            "parameters": spec.config.net.parameters,
            "artifact_cap_bytes": spec.budget.artifact_bytes,
            "gang": f"{spec.gang.ranks} x {spec.gang.device}",
            "scores": [str(stage) for stage in spec.scores],
            "settings": flat_params(spec),
        }
        for name, spec in specs.items()
    ]


def show_recipes(out: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of :func:`recipes_json`, without the settings."""
    table = Table()
    for column in ("name", "parameters", "cap", "gang", "scores", "notes"):
        table.add_column(column)
    for row in rows:
        parameters, cap = f"{row['parameters']:,}", f"{row['artifact_cap_bytes']:,}"
        table.add_row(row["name"], parameters, cap, row["gang"], " ".join(row["scores"]), row["notes"])
    out.print(table)
