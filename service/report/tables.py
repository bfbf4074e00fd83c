"""The tables of a report as cells of text, each with what it is sorted by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from service.logs import short
from service.money import Price
from service.report.facts import Cap, ConfigFacts, Report, SeedFacts
from service.report.money import Money, Part
from service.shown import RunStatus
from service.stats import spread
from service.summary import FEWEST_PAIRS

Tone = Literal["", "good", "bad", "warn", "soft"]
NONE = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell."""

    text: str
    sort: float | str | None = None
    """What its column is sorted by; None: by the text, in a column of numbers last."""
    tone: Tone = ""
    note: str = ""
    """A second line, smaller."""

    def order(self, number: bool) -> str:
        """What the page's script compares; empty is last."""
        return ("" if number else self.text) if self.sort is None else str(self.sort)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table; the first cell of a row is its head."""

    caption: str
    heads: tuple[tuple[str, bool], ...]
    """Of each column: its title, and whether it holds numbers."""
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = False


def config_table(report: Report) -> Table:
    """Every config, the best first; after those with all their seeds the others, for a mean over survivors is none."""
    heads = (
        *(("Config", False), ("Score", False), ("Seeds", True), ("val_bpb, mean ± sd", True), ("95 % CI", True)),
        *(("vs base, paired ± 95 % CI", True), ("p", True), ("Legality", False)),
        *(("Artifact bytes", True), ("Train s", True), ("Eval s", True)),
    )

    def place(one: ConfigFacts) -> tuple[bool, bool, float]:
        return not one.state.whole, not one.state.done, one.metrics.get("val_bpb_mean", 0.0)

    ordered = sorted(report.configs, key=place)
    won = report.winner
    leads = {one.state.label for one in (won.chosen, won.spoken)} if won else set()
    rows = tuple(tuple(_config_cells(one, one.state.label in leads)) for one in ordered)
    worst = f"The worst seed of a config stands for its bytes and times, with its share of the cap{_caps(report)}."
    code = "" if all(one.whole_artifact for one in report.configs) else " Bytes marked so are without the code."
    caption = f"{worst}{code} Standard deviations are of the sample (n - 1)."
    return Table(caption=caption, heads=heads, rows=rows, sortable=len(rows) > 1)


def _caps(report: Report) -> str:
    """The caps, where all configs have the same."""
    shapes = {"artifact": "{:,.0f} bytes", "train": "{:,.10g} s of training", "eval": "{:,.10g} s of evaluation"}
    found = {name: {one.caps[name].cap for one in report.configs} for name in shapes}
    told = [shapes[name].format(*caps) for name, caps in found.items() if len(caps) == 1 and None not in caps]
    return f" ({'; '.join(told)})" if told else ""


def _config_cells(one: ConfigFacts, leads: bool) -> Iterator[Cell]:
    state, metrics = one.state, one.metrics
    base = one.base and state.label != "base"
    marks = [word for word, said in (("base", base), ("leads", leads), ("fresh seeds", one.confirms)) if said]
    yield Cell(text=state.label, note=", ".join(marks), tone="good" if leads else "")
    yield Cell(text=state.config.headline)
    yield _seeds_cell(one)
    mean = metrics.get("val_bpb_mean")
    yield Cell(text=spread(state.bpb) if state.done else NONE, sort=mean, tone="" if state.whole else "soft")
    yield _signed(metrics.get("val_bpb_ci95"), "± {:.4f}")
    yield _versus(one)
    yield _p_cell(one)
    yield legality_cell(one)
    code = "" if one.whole_artifact else "no code"
    yield cap_cell(one.caps["artifact"], "{:,.0f}", code)
    yield cap_cell(one.caps["train"], "{:,.1f}")
    yield cap_cell(one.caps["eval"], "{:,.1f}")


def _seeds_cell(one: ConfigFacts) -> Cell:
    state = one.state
    text = f"{len(state.done)}/{len(state.seeds)}"
    if state.failed:
        return Cell(text=text, note=f"{len(state.failed)} failed", tone="bad", sort=len(state.done))
    if state.config.stopped:
        return Cell(text=text, note="stopped", tone="soft", sort=len(state.done))
    if not state.whole:
        note = "running" if state.status is RunStatus.RUNNING else "broken off"
        return Cell(text=text, note=note, tone="warn", sort=len(state.done))
    return Cell(text=text, sort=len(state.done))


def _versus(one: ConfigFacts) -> Cell:
    mean, half = one.metrics.get("vs_base_mean"), one.metrics.get("vs_base_ci95")
    if mean is None:
        return Cell(text="" if one.base else NONE, tone="soft")
    text = f"{mean:+.4f}" + ("" if half is None else f" ± {half:.4f}")
    return Cell(text=text, sort=mean, tone="good" if mean < 0 else "bad" if mean > 0 else "")


def _p_cell(one: ConfigFacts) -> Cell:
    p = one.metrics.get("vs_base_p")
    if p is None or one.pairs < FEWEST_PAIRS:
        few = 0 < one.pairs < FEWEST_PAIRS and not one.base
        return Cell(
            text="" if one.base else NONE, note=f"{one.pairs} pair{'s' * (one.pairs != 1)}" if few else "", tone="soft"
        )
    return Cell(text=f"{p:.2g}", sort=p)


def legality_cell(one: ConfigFacts) -> Cell:
    """Whether its score had learned from what it scored."""
    if one.state.leaks:
        return Cell(text="leaks", note=one.legality, tone="bad")
    return Cell(text=one.legality or "not told", tone="good" if one.legality else "soft")


def share_text(cap: Cap) -> str:
    """Of its cap, ``68.5 %``; never rounded onto it or across it."""
    if cap.worst is None or not cap.cap:
        return ""
    share = 100 * cap.worst / cap.cap
    shown = [f"{share:.{digits}f}" for digits in (1, 3, 6)]
    return f"{next((text for text in shown if share == 100 or float(text) != 100), shown[-1])} %"


def cap_cell(cap: Cap, shape: str, aside: str = "") -> Cell:
    """The worst seed, and what share of its cap that is."""
    if cap.worst is None:
        return Cell(text=NONE, tone="soft")
    share = share_text(cap)
    note = ", ".join(part for part in (share, aside) if part)
    return Cell(text=shape.format(cap.worst), sort=cap.worst, note=note, tone="bad" if cap.broken else "")


def seed_table(report: Report) -> Table:
    """Every seed of every config."""
    heads = (
        *(("Config", False), ("Seed", True), ("State", False), ("val_bpb", True), ("vs base", True)),
        *(("Train s", True), ("Eval s", True), ("Model bytes", True), ("Exposed tokens", True), ("Tries", True)),
        ("Stages", False),
    )
    rows = tuple(tuple(_seed_cells(one, seed)) for one in report.configs for seed in one.seeds)
    caption = "In the order in which configs were begun. The names under Stages are what caddie logs takes."
    return Table(caption=caption, heads=heads, rows=rows, sortable=len(rows) > 1)


STATES: dict[RunStatus, tuple[str, Tone]] = {
    RunStatus.FINISHED: ("done", "good"),
    RunStatus.FAILED: ("failed", "bad"),
    RunStatus.RUNNING: ("running", "warn"),
    RunStatus.KILLED: ("not run", "soft"),
}


def _seed_cells(one: ConfigFacts, seed: SeedFacts) -> Iterator[Cell]:
    text, tone = STATES[seed.state.status]
    stopped = seed.state.status is RunStatus.KILLED and not one.state.config.stopped and seed.state.reports
    yield Cell(text=one.state.label)
    yield Cell(text=str(seed.state.seed), sort=seed.state.seed)
    yield Cell(text="broken off" if stopped else text, tone=tone)
    yield Cell(text=NONE if seed.val_bpb is None else f"{seed.val_bpb:.6f}", sort=seed.val_bpb)
    yield _signed(seed.vs_base, "{:+.6f}", blank=one.base)
    for value, shape in ((seed.train_s, "{:,.1f}"), (seed.eval_s, "{:,.1f}"), (seed.model_bytes, "{:,.0f}")):
        yield Cell(text=NONE if value is None else shape.format(value), sort=value)
    exposed = seed.exposed
    yield Cell(text=NONE if exposed is None else f"{exposed:,.0f}", sort=exposed, tone="bad" if exposed else "")
    yield Cell(text=str(seed.tries) if seed.tries else NONE, sort=seed.tries, tone="warn" if seed.tries > 1 else "")
    keys = [
        short(key) + ("" if stage in seed.state.reports else " (missing)") for stage, key in seed.state.keys.items()
    ]
    yield Cell(text=", ".join(keys), tone="soft")


def _signed(value: float | None, shape: str, *, blank: bool = False) -> Cell:
    if value is None:
        return Cell(text="" if blank else NONE, tone="soft")
    return Cell(text=shape.format(value), sort=value)


def money_table(money: Money) -> Table:
    """Where the GPU-hours went."""

    def row(what: str, part: Part, note: str) -> tuple[Cell, ...]:
        return (
            Cell(text=what, note=note),
            Cell(text=f"{part.count:,}"),
            Cell(text=f"{part.gpu_hours:.4g}"),
            Cell(text=f"{money.price.usd(part.gpu_hours):,.2f}"),
        )

    parts = (money.computed, money.cached, money.failed)
    rows = (
        row("Computed", money.computed, "finished since the experiment was begun last"),
        row("Cached", money.cached, "finished before, or elsewhere: not paid again"),
        row("Tries without a result", money.failed, "failed, ended, or still under way"),
        row("All of it", Part(count=sum(one.count for one in parts), gpu_hours=money.all_gpu_hours), ""),
    )
    heads = (("What", False), ("Stages or tries", True), ("GPU-hours", True), ("USD", True))
    return Table(caption=_rate(money.price, money.on_cpu), heads=heads, rows=rows)


def _rate(price: Price, on_cpu: bool) -> str:
    cpu = ", CPU ranks counted as GPUs" if on_cpu else ""
    return f"{price.node_usd_per_hour:g} USD a node-hour of 8 GPUs{cpu}. Audits and records aren't counted."


def listed(seeds: Sequence[int]) -> str:
    """``42, 1337``."""
    return ", ".join(map(str, seeds)) or "none"
