from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import pytest

from service.figures import TALLEST, Band, Row, draw_equal_time, draw_heat, draw_loss, draw_seeds, numeric_axes

BASE = {1: 2.0, 2: 2.1, 3: 2.05}


def row(title: str, values: Mapping[int, float], overlay: Mapping[str, Any] | None = None, leaks: bool = False) -> Row:
    return Row(title=title, score="s", values=values, leaks=leaks, overlay=overlay or {}, base=title == "base")


def grid(*cells: tuple[Any, Any]) -> list[Row]:
    trials = [row(f"lr={a} steps={b}", {1: 1.9 + i / 10}, {"lr": a, "steps": b}) for i, (a, b) in enumerate(cells)]
    return [row("base", BASE), *trials]


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, of a PNG."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_two_numbers_that_vary_are_the_axes_of_a_heat_map() -> None:
    assert numeric_axes(grid((0.1, 1), (0.1, 2), (0.1, 3), (0.2, 1))) == ("lr", "steps")
    assert numeric_axes(grid((1, 0.1), (2, 0.1), (3, 0.1), (3, 0.2))) == ("steps", "lr")


@pytest.mark.parametrize(
    "rows",
    [
        grid(),
        grid((0.1, 1), (0.1, 2)),
        grid((0.1, True), (0.2, False)),
        grid(("a", 1), ("b", 2)),
        [row("base", BASE), row("x", BASE, {"lr": 0.1}), row("y", BASE, {"lr": 0.2})],
        [*grid((0.1, 1), (0.2, 2)), row("x", BASE, {"lr": 0.1})],
        [*grid((0.1, 1), (0.2, 2)), row("x", BASE, {"lr": 0.1, "steps": 1, "after": 1})],
    ],
    ids=["no trials", "one row", "not numbers", "words", "one axis", "an axis is missing", "a third axis"],
)
def test_what_is_no_grid_of_two_numbers_has_no_heat_map(rows: list[Row]) -> None:
    assert numeric_axes(rows) is None
    with pytest.raises(ValueError, match="two numeric axes"):
        draw_heat("x", rows)


FIGURES: dict[str, Callable[[], bytes]] = {
    "seeds": lambda: draw_seeds("slot-tiny", grid((0.1, 1), (0.2, 2))),
    "one seed": lambda: draw_seeds("x", [row("base", {1: 2.0}), row("y", {1: 1.9}, leaks=True)]),
    "no seed of the base": lambda: draw_seeds("x", [row("base", {}), row("y", BASE)]),
    "a dollar sign and a long name": lambda: draw_seeds("$x$", [row("base", BASE), row("$" + "long " * 60, BASE)]),
    "equal time": lambda: draw_equal_time(
        "x", [row("base", BASE), (ours := row("y", {1: 1.9, 2: 2.0})), row("z", {})], ours
    ),
    "equal time, one seed of one config": lambda: draw_equal_time("x", [ours := row("y", {1: 1.9})], ours),
    "a heat map with a hole": lambda: draw_heat("x", grid((0.1, 1), (0.2, 2), (0.2, 1))),
    "a heat map of equals": lambda: draw_heat(
        "x", [row("base", BASE), *(row(f"{i}", BASE, {"a": i % 2, "b": i // 2}) for i in range(4))]
    ),
    "loss": lambda: draw_loss("x", [Band(title="base", curves=[[6.0, 5.0, 4.0], [6.5, 5.5, 4.5, 4.0]])]),
    "no curve": lambda: draw_loss("x", [Band(title="base", curves=[[]])]),
    "a flat curve": lambda: draw_loss("x", [Band(title="base", curves=[[1.0] * 100])]),
}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_seeds("$x$", grid((0.1, 1), (0.2, 2)), "svg"),
        lambda: draw_heat("x", grid((0.1, 1), (0.2, 2), (0.2, 1)), "svg"),
        lambda: draw_loss("x", [Band(title="base", curves=[[6.0, 5.0, 4.0]])], "svg"),
    ],
)
def test_an_svg_is_the_same_every_time_and_needs_no_font(draw: Callable[[], bytes]) -> None:
    drawn = draw()
    assert draw() == drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert b"<text" not in drawn


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_drawing_warns_of_nothing_and_is_the_same_every_time(
    draw: Callable[[], bytes], recwarn: pytest.WarningsRecorder
) -> None:
    drawn = draw()
    assert min(size(drawn)) > 150
    assert draw() == drawn
    assert [str(warning.message) for warning in recwarn if not issubclass(warning.category, DeprecationWarning)] == []


def test_a_picture_of_many_configs_stays_of_a_size_that_can_be_looked_at() -> None:
    def tall(count: int) -> int:
        return size(draw_seeds("x", [row("base", BASE), *(row(f"c{i}", {1: 1 + i / 999}) for i in range(count))]))[1]

    assert tall(TALLEST - 1) == tall(4 * TALLEST) < 3000
    assert tall(3) < tall(10)


def test_a_better_seed_moves_its_dot_and_nothing_else_decides_the_picture() -> None:
    rows = grid((0.1, 1), (0.2, 2))
    assert draw_seeds("x", rows) != draw_seeds("x", [rows[0], rows[1], row(rows[2].title, {1: 1.7}, rows[2].overlay)])
    assert math.isfinite(size(draw_seeds("x", list(reversed(rows))))[0])
    assert draw_seeds("x", [rows[0], rows[2], rows[1]]) == draw_seeds("x", rows)
