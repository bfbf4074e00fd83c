"""The figures of a report: those of MLflow's view as drawings, each with what it shows in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from model.report import StageReport
from service.notes import ExperimentNote
from service.ports import StageStore
from service.view import ConfigState, view_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure, in words for those who don't see it, too."""

    name: str
    alt: str
    draw: Callable[[], bytes]
    """As an SVG."""


def pictures_of(
    note: ExperimentNote,
    store: StageStore,
    alive: Callable[[ExperimentNote], bool],
    known: Mapping[str, StageReport],
    winner: ConfigState | None,
) -> tuple[Picture, ...]:
    """Every seed and the heat map, as MLflow's base has them, and the winner's losses beside the base's; drawn when the
    page is."""
    configs = {config.run.key: config for config in view_of([note], store, alive, known, form="svg").configs}
    base = configs[note.compared_with.key]
    best = configs[winner.config.key] if winner else base
    shown = (("seeds.svg", base), ("heat_map.svg", base), ("loss.svg", best))
    return tuple(
        Picture(
            name=file.partition(".")[0],
            alt=_alt(file.partition(".")[0], note, config.run.name, winner),
            draw=config.figures[file],
        )
        for file, config in shown
        if file in config.figures
    )


def _alt(name: str, note: ExperimentNote, title: str, winner: ConfigState | None) -> str:
    best = ""
    if winner:
        best = f" The winner is {winner.label} at {winner.bpb.mean:.4f} bits per byte."
    return {
        "seeds": "A dot for every seed and a bar for the mean of each config: its score on the left, its difference to "
        f"the base on the same seeds with the 95 % interval on the right.{best} The tables have the numbers.",
        "heat_map": "A grid over the two numbers that the trials vary: the mean score in each cell, coloured by its "
        f"difference to the base.{best}",
        "loss": f"Training loss over the steps of {title}: the mean over seeds, and a band from the lowest to the "
        f"highest seed, beside the base of {note.name} where that trained otherwise.",
    }[name]
