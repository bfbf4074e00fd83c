"""What a report says, as numbers: worked out from one experiment's note and the store, as MLflow's view is.

It works beside a driver that still runs and after its end, and says of nothing unfinished that it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.report import StageReport
from service.errors import SpecError
from service.money import Price
from service.notes import CONFIRMED, ExperimentNote
from service.ports import StageStore
from service.report.gates import Against, judged
from service.report.money import Money, money_of
from service.report.pictures import Picture, pictures_of
from service.shown import RunStatus
from service.status import status_json
from service.view import ConfigState, SeedState, config_metrics, hardware, legality, states_of

STEPS_OVER = 3
"""Training stops after the step in which its clock ran out; ranks may agree on that a step later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cap:
    """The worst seed beside one cap; None where nothing was measured."""

    worst: float | None
    cap: float | None
    slack: float = 0.0
    """How far above the cap still counts as within."""

    @property
    def broken(self) -> bool:
        return self.worst is not None and self.cap is not None and self.worst > self.cap + self.slack


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedFacts:
    """One seed of one config."""

    state: SeedState
    val_bpb: float | None
    vs_base: float | None
    """On the same seed."""
    train_s: float | None
    eval_s: float | None
    """Of all scores of the config together."""
    model_bytes: float | None
    artifact_bytes: float | None
    """With the code; None where nobody has counted that."""
    exposed: float | None
    """Tokens scored after they had been learned from."""
    tries: int
    """Number of the newest try of any of its stages."""
    slack_s: float
    """What the steps in which the clock ran out may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigFacts:
    """One config."""

    state: ConfigState
    base: bool
    confirms: bool
    """Whether it is a race's winner over fresh seeds."""
    metrics: Mapping[str, float]
    """As in MLflow: :func:`service.view.config_metrics`."""
    pairs: int
    """Seeds that it has in common with the base."""
    legality: str
    hardware: str
    seeds: tuple[SeedFacts, ...]
    caps: Mapping[str, Cap]
    """``artifact``, ``train`` and ``eval``."""

    @property
    def whole_artifact(self) -> bool:
        """Whether the artifact's bytes are with the code, as the cap counts them."""
        return all(seed.artifact_bytes is not None for seed in self.seeds if seed.model_bytes is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """Who leads, by what, and who said so."""

    chosen: ConfigFacts
    """Over the seeds that chose it."""
    spoken: ConfigFacts
    """The same over fresh seeds, where some confirmed it."""
    raced: bool
    tried: int
    """Configs beside the base that it was chosen from."""

    @property
    def confirmed(self) -> bool:
        return self.spoken is not self.chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that the page says."""

    note: ExperimentNote
    standing: str
    """``done``, ``running``, ``failed`` or ``interrupted``."""
    seeds_done: int
    seeds_failed: int
    seeds: int
    configs: tuple[ConfigFacts, ...]
    """The base first, in the order in which they were begun."""
    winner: Winner | None
    against: tuple[Against, ...]
    money: Money
    errors: tuple[Mapping[str, Any], ...]
    """``config``, ``seed``, ``error`` and the ``key`` of the stage, as ``caddie status`` has them."""
    pictures: tuple[Picture, ...]
    older: int
    """Experiments of the same name that were begun before."""

    @property
    def base(self) -> ConfigFacts:
        return next(config for config in self.configs if config.base)


def find_note(notes: Sequence[ExperimentNote], name: str) -> tuple[ExperimentNote, int]:
    """The newest experiment of that name, or the one called ``NAME-ID``; and how many of its name are older.

    Raises:
        SpecError: there is none; the message has those that there are.
    """
    found = [note for note in notes if note.name == name] or [n for n in notes if f"{n.name}-{n.id}" == name]
    if not found:
        names = ", ".join(dict.fromkeys(note.name for note in notes)) or "none"
        raise SpecError(f"no experiment {name!r} was run here; there is {names}")
    newest = max(found, key=lambda note: (note.started_s, note.id))
    older = [note for note in notes if note.name == newest.name and note.started_s < newest.started_s]
    return newest, len(older)


def report_of(
    note: ExperimentNote,
    store: StageStore,
    alive: Callable[[ExperimentNote], bool],
    price: Price,
    older: int = 0,
) -> Report:
    """Everything that there is to say of one experiment; it only reads."""
    known: dict[str, StageReport] = {}

    def find(key: str) -> StageReport | None:
        if key not in known and (report := store.find(key)) is not None:
            known[key] = report
        return known.get(key)

    states = states_of(note, find, alive=alive(note))
    base = next(state for state in states if state.config is note.compared_with)
    rows: dict[str, ConfigState] = {}
    for state in states:  # a trial that equals another config is one row, as in MLflow
        if state.config.key not in rows or state.config.won:
            rows[state.config.key] = state
    configs = tuple(_config(state, base, store) for state in rows.values())
    standing = status_json([note], store, alive, note.started_s)["experiments"][0]
    winner = winner_of(configs)
    return Report(
        note=note,
        standing=standing["state"],
        seeds_done=standing["seeds"]["done"],
        seeds_failed=standing["seeds"]["failed"],
        seeds=standing["seeds"]["total"],
        configs=configs,
        winner=winner,
        against=judged(winner.spoken.state, base) if winner else (),
        money=money_of(note, store, price),
        errors=tuple(standing["errors"]),
        pictures=pictures_of(note, store, alive, known, winner.chosen.state if winner else None),
        older=older,
    )


def winner_of(configs: Sequence[ConfigFacts]) -> Winner | None:
    """A race's winner, else the best config with all its seeds, a leaking one only without any other; or None."""
    tried = [config for config in configs if not config.confirms]
    won = next((config for config in tried if config.state.config.won and config.state.done), None)
    whole = [config for config in tried if config.seeds and config.state.whole]
    honest = [config for config in whole if not config.state.leaks]
    chosen = won or min(honest or whole, key=lambda config: config.state.bpb.mean, default=None)
    if chosen is None:
        return None
    again = f"{chosen.state.config.title}{CONFIRMED}"
    fresh = (one for one in configs if one.confirms and one.state.config.title == again and one.state.done)
    spoken = next(fresh, chosen) if won else chosen
    others = sum(not config.base for config in tried)
    return Winner(chosen=chosen, spoken=spoken, raced=won is not None, tried=others)


def _config(state: ConfigState, base: ConfigState, store: StageStore) -> ConfigFacts:
    params = state.config.params
    seeds = tuple(_seed(state, one, base, store) for one in state.seeds)
    sizes = [size for seed in seeds if (size := seed.artifact_bytes or seed.model_bytes) is not None]
    slack = max((seed.slack_s for seed in seeds), default=0.0)
    return ConfigFacts(
        state=state,
        base=state.config.key == base.config.key,
        confirms=state.config.title.endswith(CONFIRMED),
        metrics=config_metrics(state, base),
        pairs=state.bpb.minus(base.bpb).n,
        legality=legality(state.headlines) if state.headlines else "",
        hardware=hardware(report for one in state.seeds for report in one.reports.values()),
        seeds=seeds,
        caps={
            "artifact": Cap(worst=max(sizes, default=None), cap=_number(params, "budget.artifact_bytes")),
            "train": Cap(
                worst=_most(seed.train_s for seed in seeds), cap=_number(params, "budget.train_s"), slack=slack
            ),
            "eval": Cap(worst=_most(seed.eval_s for seed in seeds), cap=_number(params, "budget.eval_s")),
        },
    )


def _seed(state: ConfigState, one: SeedState, base: ConfigState, store: StageStore) -> SeedFacts:
    reports, headline = one.reports, one.reports.get(state.config.headline)
    metrics: dict[str, float] = {}
    for report in reports.values():
        metrics |= {name: value for name, value in report.metrics.items() if name != "eval_s"}
    evals = [report.metrics["eval_s"] for report in reports.values() if "eval_s" in report.metrics]
    model, whole, code = metrics.get("model_bytes"), metrics.get("artifact_bytes"), _code(state.config.params)
    val_bpb = headline.metrics["val_bpb"] if headline and one.status is RunStatus.FINISHED else None
    reference = base.bpb.values.get(one.seed)
    return SeedFacts(
        state=one,
        val_bpb=val_bpb,
        vs_base=None
        if val_bpb is None or reference is None or state.config.key == base.config.key
        else val_bpb - reference,
        train_s=metrics.get("train_s"),
        eval_s=sum(evals) if evals else None,
        model_bytes=model if model is not None else whole,
        artifact_bytes=whole if whole is not None else model + code if model is not None and code else None,
        exposed=headline.metrics.get("exposed") if headline else None,
        tries=max((store.attempts(key) for key in one.keys.values()), default=0),
        slack_s=STEPS_OVER * metrics.get("step_avg_ms", 0.0) / 1000,
    )


def _code(params: Mapping[str, str]) -> float:
    """Bytes of the code that the pack was fitted beside; 0 where nobody counted it."""
    return _number(params, "pack.code_bytes") or 0.0


def _number(params: Mapping[str, str], path: str) -> float | None:
    try:
        return float(params[path])
    except (KeyError, ValueError):
        return None


def _most(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)
