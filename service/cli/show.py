"""What commands print: tables for people, and the same as data for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.codec import encode
from service.contest import heats
from service.experiment import Experiment
from service.overview import CLEAN, flat_params, legality_of
from service.plan import ExperimentPlan
from service.recording import Recorded, from_home
from service.results import GroupResult
from service.reuse import reuse_of
from service.spec import RunSpec
from service.stages import PlannedStage
from service.stats import show, spread
from service.summary import summary_lines

SHOWN_FORECASTS = 9
"""Those that come nearest to their caps."""


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
            "status": group_status(group),
            "n": len(group.done),
            "mean_bpb": group.bpb.mean if group.done else None,
            "sd_bpb": group.bpb.sd,
            "vs_base": paired_json(group, groups[0]),
            "reused": reuse_of(_plans(group)),
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


def _plans(group: GroupResult) -> dict[int, tuple[PlannedStage, ...]]:
    return {seed: result.plan for seed, result in group.seeds.items()}


def group_status(group: GroupResult) -> str:
    """``stopped after 1 of 3 seeds: can't win any more``, or in one word."""
    if group.stopped:
        return f"stopped {group.stopped}"
    return "failed" if group.failed else "complete" if len(group.done) == len(group.seeds) else "running"


def race_json(experiment: Experiment, groups: Sequence[GroupResult]) -> dict[str, Any]:
    """A race for programs: which seeds chose and which confirmed, and what the winner measured on either."""
    assert experiment.race is not None
    racing, standings = experiment.race.racing, [heat.stands for heat in heats(experiment, groups)]
    won = next((group for group in groups if group.won), None)
    samples = {"chose": won.bpb if won else None, "confirmed": won.confirmed.bpb if won and won.confirmed else None}
    return {
        "rule": racing.rule,
        "winner": encode(dict(won.overlay)) if won else None,
        "seeds_that_chose": list(experiment.seeds),
        "seeds_that_confirmed": sorted(won.confirmed.seeds) if won and won.confirmed else [],
        **{
            name: {"n": sample.n, "mean_bpb": sample.mean if sample.n else None, "sd_bpb": sample.sd}
            for name, sample in samples.items()
            if sample is not None
        },
        "seed_runs": sum(stands.runs for stands in standings),
        "seed_runs_of_the_grid": (len(groups) - 1) * len(experiment.seeds),
        "sd_bpb": standings[0].seeds.sd_bpb,
        "sd_paired_bpb": standings[0].pairs.sd_bpb,
        "correlation": standings[0].correlation,
    }


def search_json(experiment: Experiment, groups: Sequence[GroupResult]) -> dict[str, Any]:
    """A search whose trials were proposed, for programs."""
    assert experiment.sampling is not None
    return {"how": "tpe", "trials": experiment.sampling.trials, "proposed": len(groups) - experiment.sampling.given}


def show_race(out: Console, experiment: Experiment, groups: Sequence[GroupResult]) -> None:
    """Below the table: who was stopped and why, which seeds chose and which confirmed."""
    race = race_json(experiment, groups)
    for group in groups:
        if group.stopped:
            out.print(f"stopped   {group.title}: {group.stopped}", soft_wrap=True)
    runs = f"{race['seed_runs']} of the grid's {race['seed_runs_of_the_grid']} seed runs"
    pairs = f"{race['sd_paired_bpb']:.5f} of a paired difference (correlation {race['correlation']:.3f})"
    out.print(f"race      {runs}; sd {race['sd_bpb']:.4f} over seeds, {pairs}", soft_wrap=True)
    for group in groups:
        if group.won:
            out.print(f"chosen    {show(group.bpb)}, {group.title}, by seeds {_listed(group.seeds)}", soft_wrap=True)
        if group.confirmed:
            sample, flattered = group.confirmed.bpb, ""
            if sample.n:
                flattered = f"; {sample.mean - group.bpb.mean:+.4f} against the seeds that chose it"
            fresh = _listed(group.confirmed.seeds)
            out.print(f"confirmed {show(sample)}, by fresh seeds {fresh}{flattered}", soft_wrap=True)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


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
        seeds = f"{len(group.done)}/{len(group.seeds)}" + (" stopped" if group.stopped else "")
        table.add_row(group.title, group.headline, seeds, spread(group.bpb), versus)
    out.print(table)
    if experiment.race:
        show_race(out, experiment, groups)
    for line in dict.fromkeys(line for group in groups for line in reuse_of(_plans(group))):
        out.print(f"reused    {line}", soft_wrap=True)
    for group in (*groups, *(group.confirmed for group in groups if group.confirmed)):
        for result in group.failed:
            what = Text.assemble(("failed", "red"), f" {group.title}, seed {result.seed}: {result.error}")
            out.print(what, soft_wrap=True)


def show_plan(out: Console, plan: ExperimentPlan) -> None:
    """What would run and why, and what it would cost."""
    to_run = len(plan.to_run)
    title = f"{plan.experiment.name}: {to_run} stages to run, {len(plan.rows) - to_run} done"
    table = Table(title=f"{title}, {plan.shared} shared", title_justify="left")
    for column in ("stage and key", "seed", "state", "configs", "because"):
        table.add_column(column)
    for key, row in plan.rows.items():
        state = "done" if row.cached else "to run"
        table.add_row(key, str(row.planned.seed), state, str(row.users), row.because)
    out.print(table)
    caps = f"; {plan.by_caps} of {to_run} stages counted by their caps, nothing like them has finished"
    cpu = ", CPU ranks counted as GPUs" if plan.experiment.base.spec.gang.device == "cpu" else ""
    rate = f"{plan.price.node_usd_per_hour:g} USD a node-hour{cpu}"
    out.print(f"cost      {plan.price.show(plan.gpu_hours)} at {rate}{caps if plan.by_caps else ''}", soft_wrap=True)
    _show_open(out, plan)
    for forecast in plan.forecasts[:SHOWN_FORECASTS]:
        out.print(f"forecast  {forecast}", soft_wrap=True)
    if len(plan.forecasts) > SHOWN_FORECASTS:
        out.print(f"          and {len(plan.forecasts) - SHOWN_FORECASTS} further from their caps (--json has all)")


def _show_open(out: Console, plan: ExperimentPlan) -> None:
    """What of the cost isn't certain to be run, or not known yet."""
    experiment, price = plan.experiment, plan.price
    if experiment.race:
        again = [row for row in plan.rows.values() if row.confirms]
        hours = price.show(sum(row.gpu_hours for row in again))
        counted = f"{len(again)} stages confirm the winner, counted as the costliest config's: {hours}"
        out.print(f"race      at most this: who can't win is stopped; {counted}", soft_wrap=True)
    if experiment.to_propose:
        trials = f"{experiment.to_propose} of {experiment.sampling.trials if experiment.sampling else 0} trials"
        counted = f"they are counted as what those listed take on the average: {price.show(plan.later)}"
        out.print(f"search    {trials} aren't known before others have finished; {counted}", soft_wrap=True)


def record_json(recorded: Recorded) -> dict[str, Any]:
    """A record for programs: where it is, and its verdict."""
    return {"folder": str(recorded.folder), **recorded.verdict.to_json()}


def show_summary(out: Console, summary: Mapping[str, Any], mismatches: Sequence[str] = ()) -> None:
    """The closing lines of an experiment, and what its record doesn't prove."""
    for line in summary_lines(summary):
        out.print(line, soft_wrap=True)
    for line in mismatches:
        out.print(f"          {line}", soft_wrap=True)


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
            "legality": legality_of(spec),
            "settings": flat_params(spec),
        }
        for name, spec in specs.items()
    ]


def show_recipes(out: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of :func:`recipes_json`, without the settings."""
    table = Table(caption_justify="left")
    for column in ("name", "parameters", "cap", "scores", "notes"):
        table.add_column(column, no_wrap=column != "notes")
    for row in rows:
        parameters, cap = f"{row['parameters']:,}", f"{row['artifact_cap_bytes']:,}"
        marked = (
            name.removeprefix("score.") if words == CLEAN else f"[{name.removeprefix('score.')}]"
            for name, words in row["legality"].items()
        )
        table.add_row(row["name"], parameters, cap, " ".join(marked), row["notes"])
    table.caption = "[score]: not legal, exposed to what it scores"
    out.print(table)
