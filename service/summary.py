"""How an experiment ended, in a few lines: who won, by how much, what it took and where it lies."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.codec import encode
from service.experiment import Experiment
from service.money import Price
from service.ports import StageStore
from service.results import GroupResult
from service.spent import Spent, spent_since, tried_before
from service.stats import Sample

FEWEST_PAIRS = 3
"""Below that, a paired test says nothing worth printing."""


def winner_of(groups: Sequence[GroupResult]) -> GroupResult | None:
    """A race's winner, else the best config with all its seeds, a leaking one only without any other; or None."""
    if won := next((group for group in groups if group.won), None):
        return won
    whole = [group for group in groups if group.seeds and len(group.done) == len(group.seeds)]
    honest = [group for group in whole if not group.leaks]
    return min(honest or whole, key=lambda group: group.bpb.mean, default=None)


def ranks_of(experiment: Experiment) -> dict[str, int]:
    """Every stage that the experiment may need -> ranks of its gang; with the seeds that a race's winner is given."""
    fresh = experiment.race.fresh if experiment.race else ()
    plans = (plan for contender in (*experiment.contenders, *fresh) for plan in contender.plans.values())
    return {planned.key: planned.gang.ranks for plan in plans for planned in plan}


def summary_json(
    experiment: Experiment,
    groups: Sequence[GroupResult],
    *,
    spent: Spent,
    price: Price,
    elapsed_s: float,
    record: str | None = None,
    verified: bool | None = None,
) -> dict[str, Any]:
    """The ending of ``experiment`` for programs; ``elapsed_s`` is the command's wall clock, ``spent`` what it took."""
    won = winner_of(groups)
    every = (*groups, *(group.confirmed for group in groups if group.confirmed))
    keys = {result.key(stage) for group in every for result in group.seeds.values() for stage in result.reports}
    return {
        "winner": _winner(won) if won else None,
        "vs_base": _versus(won, groups) if won else None,
        "race": _race(won) if won and experiment.race else None,
        "stages": {"computed": len(spent.computed & keys), "cached": len(keys - spent.computed)},
        "failed_seeds": sum(len(group.failed) for group in every),
        "gpu_hours": spent.gpu_hours,
        "usd": price.usd(spent.gpu_hours),
        "node_usd_per_hour": price.node_usd_per_hour,
        "device": experiment.base.spec.gang.device,
        "elapsed_s": elapsed_s,
        "record": record,
        "verified": verified,
    }


class Start:
    """What a summary needs from before its experiment begins."""

    def __init__(self, experiment: Experiment, store: StageStore, price: Price) -> None:
        self.experiment, self.store, self.price = experiment, store, price
        self.ranks = ranks_of(experiment)
        self.before = tried_before(store, self.ranks)
        self.started = time.monotonic()

    def summary(
        self, groups: Sequence[GroupResult], record: str | None = None, verified: bool | None = None
    ) -> dict[str, Any]:
        """As :func:`summary_json` gives it, of what was computed since."""
        return summary_json(
            self.experiment,
            groups,
            spent=spent_since(self.store, self.ranks, self.before),
            price=self.price,
            elapsed_s=time.monotonic() - self.started,
            record=record,
            verified=verified,
        )


def _winner(won: GroupResult) -> dict[str, Any]:
    spoken = won.confirmed if won.confirmed and won.confirmed.done else won
    sample = spoken.bpb
    return {
        "config": won.title,
        "overlay": encode(dict(won.overlay)),
        "score": str(won.headline),
        "mean_bpb": sample.mean,
        "sd_bpb": sample.sd,
        "n": sample.n,
        "seeds": sorted(sample.values),
        "leaks": won.leaks,
    }


def _versus(won: GroupResult, groups: Sequence[GroupResult]) -> dict[str, Any] | None:
    """On the seeds that both have, for a race those that chose: nobody gave the base the fresh ones."""
    base = groups[0]
    if won is base:
        return None
    paired: Sample = won.bpb.minus(base.bpb)
    enough = paired.n >= FEWEST_PAIRS
    return {
        "pairs": paired.n,
        "mean_bpb": paired.mean if paired.n else None,
        "ci95_bpb": paired.ci95,
        "p_one_sided": paired.p_below if enough else None,
        "of_tried": len(groups) - 1,
    }


def _race(won: GroupResult) -> dict[str, list[int]]:
    return {"chose": list(won.seeds), "confirmed": sorted(won.confirmed.seeds) if won.confirmed else []}


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """The same for people: 8 lines at most, and nothing that needs a terminal."""
    winner, stages, device = summary["winner"], summary["stages"], summary["device"]
    lines = [f"winner    {_winner_text(summary)}" if winner else "winner    none: no config has all its seeds"]
    if winner:
        lines.append(f"vs base   {_versus_text(summary['vs_base'])}")
    if winner and winner["leaks"]:
        lines.append("legality  LEAKS: it had learned from what it scored, so this measures memorisation")
    failed = f", {summary['failed_seeds']} seeds failed" if summary["failed_seeds"] else ""
    took = f"{summary['elapsed_s']:.0f} s of wall clock"
    lines.append(f"stages    {stages['computed']} computed, {stages['cached']} cached{failed}; {took}")
    cpu = ", CPU ranks counted as GPUs" if device == "cpu" else ""
    price = Price(node_usd_per_hour=summary["node_usd_per_hour"])
    lines.append(f"cost      {price.show(summary['gpu_hours'])} at {price.node_usd_per_hour:g} USD a node-hour{cpu}")
    if summary["record"]:
        lines.append(f"record    {summary['record']}  ({'verified' if summary['verified'] else 'NOT verified'})")
    lines.append("MLflow    make ui  (or: caddie ui)")
    return lines


def _winner_text(summary: Mapping[str, Any]) -> str:
    winner, race = summary["winner"], summary["race"]
    sd = "" if winner["sd_bpb"] is None else f" ± {winner['sd_bpb']:.4f}"
    seeds = f"n={winner['n']}"
    if race:
        fresh = f", fresh seeds {_listed(race['confirmed'])}" if race["confirmed"] else ""
        seeds += f"{fresh}; chosen by seeds {_listed(race['chose'])}"
    return f"{winner['mean_bpb']:.4f}{sd} ({seeds}), {winner['score']}, {winner['config']}"


def _versus_text(versus: dict[str, Any] | None) -> str:
    if versus is None:
        return "it is the base"
    pairs = versus["pairs"]
    if not pairs:
        return "no seed in common with the base"
    ci95, p = versus["ci95_bpb"], versus["p_one_sided"]
    interval = "" if ci95 is None else f" ± {ci95:.4f}"
    counted = f"{pairs} pair{'' if pairs == 1 else 's'}"
    if pairs < FEWEST_PAIRS:
        test = "too few for a p"
    elif p is None:
        test = "no spread, so no p"
    else:
        test = f"one-sided paired p {p:.2g}"
        test += f", not corrected for {versus['of_tried']} tried" if versus["of_tried"] > 1 else ""
    return f"{versus['mean_bpb']:+.4f}{interval} (95 % CI), {counted}, {test}"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
