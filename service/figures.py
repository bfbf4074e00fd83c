"""The pictures of an experiment: where each seed landed, a heat map over two knobs, losses as bands over seeds.

Each drawing is a PNG, or an SVG where it is asked for one; the same values give the same bytes.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from service.record.figures import smooth
from service.stats import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, BASE, BETTER, WORSE, LEAK = "#22272e", "#8a929c", "#4c566a", "#0b7a75", "#b5482a", "#b8860b"
SEEDS = ("#3b6fb6", "#e08a1e", "#4a9c5d", "#b04a8f", "#7c6bc4", "#4ba3b7", "#c7503f", "#8c7a3f")
TALLEST = 40
"""Configs that the strip plot shows at most: the base and the best."""
LONGEST = 44
"""Letters of one line of a config's name."""
Form = Literal["png", "svg"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One config of a figure."""

    title: str
    score: str
    values: Mapping[int, float]
    """Seed -> bits per byte, of the seeds that finished."""
    leaks: bool
    overlay: Mapping[str, Any]
    base: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The losses of one training over its seeds, in nats per token and step by step."""

    title: str
    curves: Sequence[Sequence[float]]


def draw_seeds(name: str, rows: Sequence[Row], form: Form = "png") -> bytes:
    """Strip plot: a dot for each seed and a bar for the mean, as scores and as paired differences to the base."""
    base = next(row for row in rows if row.base)
    others = sorted((r for r in rows if r.values and not r.base), key=lambda r: Sample(values=r.values).mean)
    shown = [base, *others[: TALLEST - 1]]
    left_out = f" (the best {len(shown) - 1} of {len(others)} and the base)" if len(others) >= TALLEST else ""
    height = 1.75 + 0.36 * len(shown)
    figure = _figure(12.0, height)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    seeds = sorted({seed for row in shown for seed in row.values})
    colours = {seed: SEEDS[index % len(SEEDS)] for index, seed in enumerate(seeds)}
    reference = Sample(values=base.values)
    said = [f"base {reference.mean:.4f}" if reference.n else "", *("" for _ in shown[1:])]
    for place, row in enumerate(shown):
        sample = Sample(values=row.values)
        _strip(left, place, sample, colours, 1.0, INK)
        paired = sample.minus(reference)
        if not row.base and paired.n:
            _strip(right, place, paired, colours, 1000.0, BETTER if paired.mean < 0 else WORSE)
            said[place] = f"{paired.mean:+.4f}" + (f" ± {paired.ci95:.4f}" if paired.ci95 is not None else "")
    if reference.n:
        left.axvline(reference.mean, color=BASE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    right.axvline(0.0, color=BASE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    for axes in (left, right):
        _plain(axes)
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        for place in range(0, len(shown), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#f6f7f8", zorder=0)
    left.set_yticks(range(len(shown)), [_label(row) for row in shown], fontsize=9)
    for label, row in zip(left.get_yticklabels(), shown, strict=True):
        if "\n" in label.get_text():
            label.set_fontsize(7.5)
        label.set_color(LEAK if row.leaks else INK)
        label.set_fontweight("bold" if row.base else "normal")
    left.set_ylim(len(shown) - 0.5, -0.5)
    numbers = right.twinx()
    _plain(numbers)
    numbers.set_ylim(len(shown) - 0.5, -0.5)
    numbers.set_yticks(range(len(shown)), said, fontsize=9, family="monospace")
    left.set_title("score; dashed: the base's mean", fontsize=10, color=INK, loc="left")
    left.set_xlabel("val_bpb (bits per byte), lower is better")
    left.ticklabel_format(axis="x", useOffset=False)
    for axes in (left, right):
        axes.locator_params(axis="x", nbins=6)
    right.set_title("difference to the base on the same seeds; line: 95 % CI", fontsize=10, color=INK, loc="left")
    right.set_xlabel("difference (0.001 bits per byte), lower is better")
    handles = [
        left.plot([], [], "o", color=colours[seed], markersize=6, label=f"seed {seed}")[0] for seed in seeds[:10]
    ]
    handles.append(left.plot([], [], "|", color=INK, markersize=12, markeredgewidth=2.2, label="mean")[0])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    _headline(figure, f"{name}: every seed of {len(others) + 1} configs{left_out}")
    return _drawn(figure, form)


def draw_equal_time(name: str, rows: Sequence[Row], house: Row) -> bytes:
    """Bars of the mean score, and how far each is from ``house`` on the same seeds with its 95 % interval: left of it
    is better. ``rows`` are in the order of the table, ``house`` one of them."""
    shown = [row for row in rows if row.values]
    figure = _figure(12.0, 1.75 + 0.36 * len(shown))
    left, right = figure.subplots(1, 2, sharey=True)
    reference = Sample(values=house.values)
    means = [Sample(values=row.values).mean for row in shown]
    span = (max(means) - min(means)) or 1.0
    colours = {seed: SEEDS[0] for row in shown for seed in row.values}
    for place, (row, mean) in enumerate(zip(shown, means, strict=True)):
        left.barh(place, mean, color=BASE if row.base else BETTER if row is house else SOFT, height=0.62)
        left.text(mean + 0.01 * span, place, f"{mean:.4f}", va="center", fontsize=8.5, color=INK)
        paired = Sample(values=row.values).minus(reference)
        if row is not house and paired.n:
            _strip(right, place, paired, colours, 1000.0, BETTER if paired.mean < 0 else WORSE)
    left.set_xlim(min(means) - 0.25 * span, max(means) + 0.2 * span)
    left.set_yticks(range(len(shown)), [_label(row) for row in shown], fontsize=9)
    left.set_ylim(len(shown) - 0.5, -0.5)
    right.axvline(0.0, color=BASE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    for axes in (left, right):
        _plain(axes)
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set_xlabel("val_bpb (bits per byte), lower is better")
    right.set_xlabel("difference to the house (0.001 bits per byte)")
    left.set_title("mean over seeds; the axis doesn't begin at 0", fontsize=10, color=INK, loc="left")
    right.set_title("right of 0 is worse; on the same seeds, line: 95 % CI", fontsize=10, color=INK, loc="left")
    _headline(figure, name)
    return _drawn(figure)


def numeric_axes(rows: Sequence[Row]) -> tuple[str, str] | None:
    """The two paths that the trials vary, where they are exactly two and numbers, and half of the cells that they span
    or more have a trial; the one with fewer values first."""
    trials = [row for row in rows if row.overlay]
    paths = sorted({path for row in trials for path in row.overlay})
    if len(paths) != 2 or any(len(row.overlay) != 2 for row in trials):
        return None
    values = {path: {row.overlay[path] for row in trials if _is_number(row.overlay[path])} for path in paths}
    whole = all(_is_number(row.overlay[path]) for row in trials for path in paths)
    if not whole or min(len(found) for found in values.values()) < 2:
        return None
    cells = {tuple(row.overlay[path] for path in paths) for row in trials}
    if 2 * len(cells) < math.prod(map(len, values.values())):
        return None  # numbers out of ranges: nearly every cell would be empty
    rows_path, columns_path = sorted(paths, key=lambda path: (len(values[path]), path))
    return rows_path, columns_path


def draw_heat(name: str, rows: Sequence[Row], form: Form = "png") -> bytes:
    """Heat map over the sweep's two numeric axes: mean score in words, its difference to the base as colour.

    Raises:
        ValueError: the trials don't vary two numbers.
    """
    axes_paths = numeric_axes(rows)
    if axes_paths is None:
        raise ValueError("a heat map needs two numeric axes")
    down, across = axes_paths
    trials = [row for row in rows if row.overlay and not row.base]
    ys = sorted({row.overlay[down] for row in trials})
    xs = sorted({row.overlay[across] for row in trials})
    reference = Sample(values=next(row.values for row in rows if row.base))
    cells: dict[tuple[int, int], tuple[float, float | None, Row]] = {}
    for row in trials:
        sample = Sample(values=row.values)
        if sample.n:
            paired = sample.minus(reference)
            place = (ys.index(row.overlay[down]), xs.index(row.overlay[across]))
            cells[place] = (sample.mean, paired.mean * 1000 if paired.n else None, row)
    figure = _figure(max(5.6, 2.9 + 1.15 * len(xs)), max(3.4, 1.9 + 0.72 * len(ys)))
    axes = figure.subplots()
    _heat_cells(figure, axes, cells, len(ys), len(xs))
    axes.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
    axes.set_yticks(range(len(ys)), [f"{value:g}" for value in ys])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    hatched = "; hatched: no result" if len(cells) < len(xs) * len(ys) else ""
    axes.set_title(f"val_bpb, mean over seeds (bits per byte){hatched}", fontsize=10, color=INK, loc="left")
    base = f", base {reference.mean:.4f}" if reference.n else ""
    _headline(figure, f"{name}: {down.rsplit('.', 1)[-1]} x {across.rsplit('.', 1)[-1]}{base}")
    return _drawn(figure, form)


def draw_loss(name: str, bands: Sequence[Band], form: Form = "png") -> bytes:
    """Training loss over steps: the mean over seeds, and a band from the lowest to the highest seed."""
    figure = _figure(8.4, 4.8)
    axes = figure.subplots()
    colours = (SEEDS[0], SOFT, *SEEDS[1:])
    tops, lows = [], []
    for index, band in enumerate(bands):
        curves = [smooth(curve) for curve in band.curves if curve]
        if not curves:
            continue
        length = min(len(curve) for curve in curves)
        columns = list(zip(*(curve[:length] for curve in curves), strict=True))
        steps = range(1, length + 1)
        mean = [math.fsum(column) / len(column) for column in columns]
        colour = colours[index % len(colours)]
        seeds = f"{len(curves)} seeds" if len(curves) > 1 else "1 seed"
        low, high = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(steps, low, high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(steps, mean, color=colour, linewidth=1.8, label=f"{_short(band.title, 60)} ({seeds})")
        tops.append(max(high[length // 20 :]))
        lows.append(min(low))
    if lows:
        # The first steps can be far above all that follows; what is left of them shows where they were.
        reach = (max(tops) - min(lows)) or 1.0
        axes.set_ylim(min(lows) - 0.03 * reach, max(tops) + 0.08 * reach)
        axes.legend(frameon=False, fontsize=9, loc="upper right")
    axes.margins(x=0.01)
    _plain(axes)
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("training loss (nats per token), smoothed")
    axes.set_title("line: mean over seeds; band: lowest to highest seed", fontsize=10, color=INK, loc="left")
    _headline(figure, f"{name}: training loss")
    return _drawn(figure, form)


def _strip(axes: Axes, place: int, sample: Sample, colours: Mapping[int, str], scale: float, colour: str) -> None:
    """One config's dots, and its mean with the 95 % interval where ``scale`` says that it shows differences."""
    if not sample.n:
        return
    if sample.ci95 is not None and scale != 1.0:
        ends = [scale * (sample.mean - sample.ci95), scale * (sample.mean + sample.ci95)]
        axes.plot(ends, [place, place], color=colour, linewidth=1.6, alpha=0.55, solid_capstyle="round", zorder=2)
    for index, (seed, value) in enumerate(sorted(sample.values.items())):
        nudge = 0.13 * ((index % 3) - 1) if sample.n > 1 else 0.0
        axes.plot(
            scale * value, place + nudge, "o", color=colours[seed], markersize=6, markeredgecolor="white",
            markeredgewidth=0.7, alpha=0.95, zorder=3,
        )  # fmt: skip
    axes.plot(scale * sample.mean, place, "|", color=colour, markersize=17, markeredgewidth=2.2, zorder=4)


def _heat_cells(
    figure: Figure,
    axes: Axes,
    cells: Mapping[tuple[int, int], tuple[float, float | None, Row]],
    height: int,
    width: int,
) -> None:
    """Coloured cells with their numbers, and the colours' scale: green is better than the base, red worse."""
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
    from matplotlib.patches import Rectangle

    colours = LinearSegmentedColormap.from_list("against base", [BETTER, "#cfe5e2", "#fbfaf7", "#f3d5c9", WORSE])
    changes = [change for _, change, _ in cells.values() if change is not None]
    reach = max(map(abs, changes), default=1.0) or 1.0
    # One bad corner must not wash out the gains: each side has a scale of its own, down to a quarter of the other's.
    better, worse = max(-min(changes, default=0.0), reach / 4), max(max(changes, default=0.0), reach / 4)
    norm = TwoSlopeNorm(0.0, -better, worse)
    grid = [[math.nan] * width for _ in range(height)]
    for (y, x), (_, change, _) in cells.items():
        grid[y][x] = 0.0 if change is None else change
    image = axes.imshow(grid, cmap=colours, norm=norm, aspect="auto")
    for y in range(height):
        for x in range(width):
            if (y, x) not in cells:
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="///", edgecolor="#c9ced6", lw=0))
                continue
            mean, change, row = cells[y, x]
            dark = change is not None and not -0.75 * better < change < 0.75 * worse
            text = (
                f"{mean:.4f}" + ("" if change is None else f"\n{change / 1000:+.4f}") + ("\nleaks" if row.leaks else "")
            )
            axes.text(
                x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else INK, linespacing=1.35
            )
    honest = {place: cell for place, cell in cells.items() if not cell[2].leaks}
    if honest:
        y, x = min(honest, key=lambda place: honest[place][0])
        axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=1.8))
    axes.set_xticks([x - 0.5 for x in range(1, width)], minor=True)
    axes.set_yticks([y - 0.5 for y in range(1, height)], minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.03)
    bar.set_label("difference to the base\n(0.001 bits per byte)", fontsize=9)
    bar.outline.set_visible(False)


def get_ready() -> None:
    """Import what draws, which takes half a second, before the first figure is asked for."""
    _drawn(_figure(1, 1))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Figure, text: str) -> None:
    figure.suptitle(_plain_text(text), fontsize=12.5, fontweight="bold", color=INK, x=0.012, ha="left")


def _drawn(figure: Figure, form: Form = "png") -> bytes:
    """An SVG has its letters as outlines, so that it looks alike whatever fonts are there."""
    file = io.BytesIO()
    if form == "png":
        figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "caddie", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9ced6")
    axes.tick_params(colors=INK, length=0)


def _label(row: Row) -> str:
    """A config's name, on two lines where one is not enough: what differs is often at the end."""
    title = row.title + (" (leaks)" if row.leaks else "")
    lines = textwrap.wrap(title, LONGEST, max_lines=2, placeholder="…", break_on_hyphens=False) or [""]
    return _plain_text("\n".join(lines))


def _short(text: str, letters: int) -> str:
    return _plain_text(text if len(text) <= letters else f"{text[: letters - 1]}…")


def _plain_text(text: str) -> str:
    """No formulas: a dollar sign is one."""
    return text.replace("$", r"\$")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
