"""A report as one HTML page that needs nothing else: no script from elsewhere, no font, no picture.

All text goes through the template's escaping; the same report gives the same bytes.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from service.errors import CaddieError
from service.report.facts import ConfigFacts, Report, Winner
from service.report.tables import Cell, config_table, legality_cell, listed, money_table, seed_table, share_text
from service.stats import show
from service.summary import FEWEST_PAIRS

TEMPLATE = "page.html.j2"
WORDS = {True: "kept", False: "broken", None: "open"}
TONES = {True: "good", False: "bad", None: "warn"}
CAPS = (("artifact", "Artifact", "{:,.0f} bytes"), ("train", "Training", "{:,.1f} s"), ("eval", "Eval", "{:,.1f} s"))
STANDINGS = {"done": "good", "running": "warn", "failed": "bad", "interrupted": "warn"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of a list of facts."""

    name: str
    text: str
    tone: str = ""
    code: bool = False


@functools.cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(TEMPLATE)


def page_of(report: Report) -> str:
    """The whole page."""
    return _template().render(
        report=report,
        standing_tone=STANDINGS[report.standing],
        summary=_summary(report),
        begun=_utc(report.note.started_s),
        headline=list(_headline(report)),
        configs=config_table(report),
        seeds=seed_table(report),
        money=money_table(report.money),
        budget=_budget(report),
        gates=report.against,
        words=WORDS,
        tones=TONES,
        provenance=list(_provenance(report)),
        pictures=[(one, base64.b64encode(one.draw()).decode("ascii")) for one in report.pictures],
        none="–",
    )


def write_page(page: str, out: Path) -> None:
    """Write ``page`` so that a reader sees all of it or none.

    Raises:
        CaddieError: the disk refuses.
    """
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(page, encoding="utf-8", newline="\n")
        os.replace(scratch, out)
    except OSError as error:
        raise CaddieError(f"{out}: {error.strerror or error}; --out names another file") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def _utc(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _summary(report: Report) -> str:
    failed = f", {report.seeds_failed} failed" if report.seeds_failed else ""
    configs = f"{len(report.configs)} config{'s' * (len(report.configs) != 1)}"
    return f"{configs}, {report.seeds_done} of {report.seeds} seeds done{failed}"


def _headline(report: Report) -> Iterator[Line]:
    """Who leads, by how much, who chose and who confirmed."""
    won = report.winner
    if won is None:
        yield Line(name="Winner", text="None: no config has all its seeds.", tone="warn")
        return
    spoken, sample = won.spoken, won.spoken.state.bpb
    so_far = " so far" if report.standing in ("running", "interrupted") else ""
    yield Line(name=f"Winner{so_far}", text=won.chosen.state.label)
    half = "" if sample.ci95 is None else f"; 95 % CI of the mean ± {sample.ci95:.4f}"
    yield Line(name="Score", text=f"{spoken.state.config.headline}, val_bpb {show(sample)}, sd with n - 1{half}")
    yield Line(name="Against the base", text=_versus(won))
    yield Line(name="Chosen by", text=_chosen(won))
    yield _confirmed(won)
    law: Cell = legality_cell(spoken)
    learned = "no token was learned from before it was scored, by the score's own account"
    text = {"good": f"clean: {learned}", "bad": f"LEAKS: {spoken.legality} tokens, so it measures memorisation"}
    yield Line(name="Legality", text=text.get(law.tone, "its scores don't tell"), tone=law.tone)
    yield from _caps(spoken)


def _versus(won: Winner) -> str:
    chosen = won.chosen
    if chosen.base:
        return "it is the base"
    mean, half, p = (chosen.metrics.get(f"vs_base_{name}") for name in ("mean", "ci95", "p"))
    if mean is None:
        return "no seed in common with the base"
    interval = "" if half is None else f" ± {half:.4f} (95 % CI)"
    pairs = f"{chosen.pairs} pair{'s' * (chosen.pairs != 1)}"
    if chosen.pairs < FEWEST_PAIRS:
        test = "too few for a p"
    elif p is None:
        test = "no spread, so no p"
    else:
        test = f"one-sided paired p {p:.2g}" + (f", not corrected for {won.tried} tried" if won.tried > 1 else "")
    return f"{mean:+.4f}{interval}, {pairs} on the same seeds, {test}"


def _chosen(won: Winner) -> str:
    by = f"seeds {listed([one.seed for one in won.chosen.state.seeds])}"
    how = "a race" if won.raced else "the lowest mean"
    others = f"{won.tried} config{'s' * (won.tried != 1)} beside the base"
    return f"{by}: {how} among {others}" if won.tried else f"{by}: nothing was compared with it"


def _confirmed(won: Winner) -> Line:
    if not won.confirmed:
        flatters = "; the seeds that chose it also flatter it" if won.tried > 1 else ""
        return Line(name="Confirmed by", text=f"no fresh seeds{flatters}", tone="warn" if won.tried > 1 else "")
    fresh, chose = won.spoken.state, won.chosen.state
    shift = fresh.bpb.mean - chose.bpb.mean
    text = f"fresh seeds {listed([one.seed for one in fresh.seeds])}; {shift:+.4f} against those that chose it"
    missing = len(fresh.seeds) - len(fresh.done)
    if missing:
        return Line(name="Confirmed by", text=f"{text}; {missing} of them without a result", tone="bad")
    return Line(name="Confirmed by", text=text, tone="good")


def _caps(one: ConfigFacts) -> Iterator[Line]:
    names = {
        "artifact": ("Artifact", "{:,.0f} bytes"),
        "train": ("Training", "{:,.1f} s"),
        "eval": ("Eval", "{:,.1f} s"),
    }
    for name, (title, shape) in names.items():
        cap = one.caps[name]
        if cap.worst is None:
            continue
        aside = ""
        if name == "artifact" and not one.whole_artifact:
            left = f"{cap.cap - cap.worst:,.0f} bytes" if cap.cap else "what is left"
            aside = f"; the model alone, the code must fit into {left}"
        share = f", {share_text(cap)} of {cap.cap:,.10g}" if cap.cap else ""
        text = f"{shape.format(cap.worst)}{share}{aside}"
        yield Line(name=f"{title}, worst seed", text=text, tone="bad" if cap.broken else "")


def _budget(report: Report) -> str:
    money = report.money
    parts = []
    if money.missing:
        parts.append(f"{money.missing} stages aren't finished and aren't in these numbers.")
    if money.budget_gpu_hours is not None:
        parts.append(f"Its command had a budget of {money.price.show(money.budget_gpu_hours)}.")
    return " ".join(parts)


def _provenance(report: Report) -> Iterator[Line]:
    note = report.note
    dirty = ", with uncommitted changes" if note.git_dirty else ""
    yield Line(name="Experiment", text=f"{note.name}-{note.id}", code=True)
    yield Line(name="Commit", text=f"{note.git_sha or 'none known'}{dirty}", code=True)
    yield Line(name="Begun last", text=_utc(note.started_s))
    yield Line(name="Recipe", text=_every(config.recipe for config in note.configs))
    corpora = (
        f"{config.params.get('corpus', 'unknown')}, digest {config.corpus or 'unknown'}" for config in note.configs
    )
    yield Line(name="Corpus", text=_every(corpora), code=True)
    yield Line(name="Tokenizer, SHA-256", text=_every(c.tokenizer or "unknown" for c in note.configs), code=True)
    yield Line(name="Hardware", text=_every(one.hardware for one in report.configs if one.hardware) or "none told")
    yield Line(name="Versions", text=_versions(report) or "none told")
    command = note.command or _command(report)
    yield Line(name="Rerun" if note.command else "Rerun, base alone", text=command, code=True)
    reused = _every(config.reused for config in note.configs if config.reused)
    if reused:
        yield Line(name="Reused stages", text=reused, tone="warn")


def _versions(report: Report) -> str:
    found: dict[str, set[str]] = {}
    for config in report.configs:
        for seed in config.state.seeds:
            for one in seed.reports.values():
                for name in ("torch", "python", "attention"):
                    if name in one.facts:
                        found.setdefault(name, set()).add(str(one.facts[name]))
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items())


def _command(report: Report) -> str:
    """Of a note that doesn't know its command line."""
    base = report.note.configs[0]
    return shlex.join(["caddie", "run", base.recipe, "--seeds", ",".join(map(str, base.seeds))])


def _every(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(words))
