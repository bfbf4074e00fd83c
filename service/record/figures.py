"""The picture in a record folder: how the seeds trained, and where each compared config's seeds landed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.record.contents import Record
from service.results import GroupResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHING = 50
"""A curve is averaged over this part of its steps: 1 / 50."""


def write_figure(record: Record, path: Path) -> None:
    """Write one PNG; the same record gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = record.compared or (record.group,)
    seeds = sorted({seed for group in groups for seed in group.seeds} | record.curves.keys())
    colours = {seed: f"C{index % 10}" for index, seed in enumerate(seeds)}
    figure = Figure(figsize=(11.0 + 0.25 * max(0, len(groups) - 8), 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw_curves(left, record.curves, colours)
    draw_scores(right, groups, record.group.title, colours)
    figure.suptitle(record.name.replace("$", r"\$"))
    figure.savefig(path, format="png", metadata={"Software": None})


def draw_curves(axes: Axes, curves: Mapping[int, Sequence[float]], colours: Mapping[int, str]) -> None:
    """Training loss over steps, raw behind and smoothed in front."""
    for seed, losses in sorted(curves.items()):
        steps = range(1, 1 + len(losses))
        axes.plot(steps, losses, color=colours[seed], linewidth=0.5, alpha=0.3)
        axes.plot(steps, smooth(losses), color=colours[seed], linewidth=1.5, label=f"seed {seed}")
    axes.set_title("Training loss")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def draw_scores(axes: Axes, groups: Sequence[GroupResult], chosen: str, colours: Mapping[int, str]) -> None:
    """One column a config: a point for each seed, and mean ± sd beside them."""
    for column, group in enumerate(groups):
        sample = group.bpb
        for seed, value in sample.values.items():
            axes.plot(column - 0.12, value, "o", color=colours[seed], markersize=5, alpha=0.8)
        if sample.n:
            axes.errorbar(column + 0.12, sample.mean, yerr=sample.sd, fmt="_k", markersize=14, capsize=3)
    marks = [f"{' (leaks)' if g.leaks else ''}{' *' if len(groups) > 1 and g.title == chosen else ''}" for g in groups]
    names = [f"{group.title}{mark}" for group, mark in zip(groups, marks, strict=True)]
    many = len(groups) > 4
    axes.set_xticks(range(len(groups)), names, rotation=40 if many else 0, ha="right" if many else "center", fontsize=8)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_title("Score of each seed; bar: mean ± sd (n - 1)" + ("; *: this record" if len(groups) > 1 else ""))
    axes.set_xlabel("config")
    axes.set_ylabel("val_bpb (bits per byte)")
    axes.grid(axis="y", alpha=0.3)


def smooth(losses: Sequence[float]) -> list[float]:
    """Each loss averaged with its neighbours, fewer of them at the ends."""
    reach = len(losses) // (2 * SMOOTHING)
    windows = (losses[max(0, at - reach) : at + reach + 1] for at in range(len(losses)))
    return [sum(window) / len(window) for window in windows]
