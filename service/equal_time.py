"""Equal time, honest score: what two stacks reach in the same wall-clock on one machine, and what parts of one add.

The base is the plain stack as its own script evaluates it. The house's parts are left out one at a time and trained
for the same wall-clock again, so that a part which costs steps must earn them; what is only of the evaluation is
changed on the same artifacts. Everything is read from stage reports.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.stages import Stage
from service.results import GroupResult
from service.spec import RunSpec, slug
from service.stats import Sample

PLAIN, OURS, OURS_TTT = "naive", "house", "house, TTT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One config that is measured: how it differs from its recipe, and the score that speaks for it."""

    title: str
    spec: RunSpec
    score: Stage
    overlay: Mapping[str, Any]
    part: bool = False
    """Whether it is the house without one of its parts."""


def machine() -> str:
    """This machine, as a class of hardware of its own: times of two machines are never compared."""
    return f"{platform.node()}, {os.cpu_count()} CPUs"


def entries_of(plain: RunSpec, ours: RunSpec, minutes: float, parts: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Everything that is measured, the base first: the plain stack by its own windows and by the house's, the house by
    its windows and with its test-time training, and the house with each of ``parts``, overlays that leave a part out.

    Raises:
        SpecError: a part doesn't fit the house.
    """
    timed = {"train.minutes": minutes, "gang.hardware": machine()}
    plain, ours = plain.at(timed), ours.at(timed)
    overlap = {"score.windows.stride": ours.config.score.windows.stride}
    entries = [
        Entry(title=PLAIN, spec=plain, score=Stage.SLIDING, overlay={}),
        Entry(title=f"{PLAIN}, windows overlap", spec=plain.at(overlap), score=Stage.SLIDING, overlay=overlap),
        Entry(title=OURS, spec=ours, score=Stage.SLIDING, overlay={"recipe": OURS}),
    ]
    if Stage.TTT in ours.scores:
        entries.append(Entry(title=OURS_TTT, spec=ours, score=Stage.TTT, overlay={"recipe": OURS}))
    for part in parts:
        title, spec, overlay = f"{OURS}, {left_out(part)}", ours.at(part), {"recipe": OURS, **part}
        entries.append(Entry(title=title, spec=spec, score=Stage.SLIDING, overlay=overlay, part=True))
    return entries


def left_out(part: Mapping[str, Any]) -> str:
    """``no bigram``, or what stands in its place: ``mlp_mult=2``."""
    absent = [path.rsplit(".", 1)[-1] for path, value in part.items() if value is None]
    rest = {path: value for path, value in part.items() if value is not None}
    return " ".join([*(f"no {name}" for name in absent), *([slug(rest)] if rest else [])])


def rows_of(
    entries: Sequence[Entry], groups: Sequence[GroupResult], code_bytes: Mapping[str, int]
) -> list[dict[str, Any]]:
    """A row for each entry, in bits per byte: its score, its differences to the plain stack and to the house on the
    seeds both have, steps, bytes and hosts. ``code_bytes`` are of the bundled script by the entry's title."""
    base = groups[0].bpb
    house = next(group.bpb for entry, group in zip(entries, groups, strict=True) if entry.title == OURS)
    rows = []
    for entry, group in zip(entries, groups, strict=True):
        done = group.done
        size = max((int(one.metric(Stage.PACK, "model_bytes")) for one in done), default=None)
        total = None if size is None else size + code_bytes[entry.title]
        rows.append(
            {
                "config": entry.title,
                "score": str(entry.score),
                "part": entry.part,
                "n": group.bpb.n,
                "val_bpb": dict(group.bpb.values),
                "mean_bpb": group.bpb.mean if group.bpb.n else None,
                "sd_bpb": group.bpb.sd,
                "vs_naive": paired(group.bpb.minus(base)) if group is not groups[0] else None,
                "vs_house": paired(group.bpb.minus(house)) if entry.title != OURS else None,
                "exposed": max((one.metric(entry.score, "exposed") for one in done), default=None),
                "train_s": mean_of(group, "train_s"),
                "train_steps": mean_of(group, "train_steps"),
                "parameters": mean_of(group, "parameters"),
                "eval_s": max((one.metric(entry.score, "eval_s") for one in done), default=None),
                "artifact_bytes": total,
                "artifact_cap_bytes": entry.spec.budget.artifact_bytes,
                "hosts": sorted({str(one.reports[Stage.TRAIN].facts.get("host", "")) for one in done}),
                "errors": {str(one.seed): one.error for one in group.failed},
            }
        )
    return rows


def mean_of(group: GroupResult, metric: str) -> float | None:
    """Of a number of the training, over the finished seeds."""
    sample = group.sample(Stage.TRAIN, metric)
    return sample.mean if sample.n else None


def paired(differences: Sample) -> dict[str, Any] | None:
    """Differences on the same seeds: mean, sd (n - 1), half the 95 % interval, one-sided p of being below 0."""
    if not differences.n:
        return None
    return {
        "n": differences.n,
        "mean_bpb": differences.mean,
        "sd_bpb": differences.sd,
        "ci95_bpb": differences.ci95,
        "p_below": differences.p_below,
    }


def verdict_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the house's best honest score is below the plain stack's best on every seed that both have, within the
    cap and on one machine; with what speaks against it."""
    against = []
    ours = [row for row in rows if row["config"] in (OURS, OURS_TTT) and row["n"] and not row["exposed"]]
    plain = [row for row in rows if row["config"].startswith(PLAIN) and row["n"]]
    if not ours or not plain:
        return {"house_wins": False, "margin_bpb": None, "against": ["a side has no finished seed"]}
    best, other = (min(side, key=lambda row: float(row["mean_bpb"])) for side in (ours, plain))
    pairs = Sample(values=best["val_bpb"]).minus(Sample(values=other["val_bpb"]))
    if not pairs.n or max(pairs.values.values()) >= 0:
        against.append("the house isn't below the plain stack on every seed that both have")
    if best["artifact_bytes"] > (cap := best["artifact_cap_bytes"]):
        against.append(f"{best['config']}: {best['artifact_bytes']:,} bytes are over the cap of {cap:,}")
    if len(hosts := {host for row in rows for host in row["hosts"]}) > 1:
        against.append(f"trained on several machines: {', '.join(sorted(hosts))}")
    return {
        "house_wins": not against,
        "compared": [best["config"], other["config"]],
        "margin_bpb": paired(pairs),
        "against": against,
    }
