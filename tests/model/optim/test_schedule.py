from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.optim.schedule import momentum_at, warmdown

unit = st.floats(0, 1)


@pytest.mark.parametrize(
    ("progress", "fraction", "floor", "factor"),
    [
        (0.0, 0.5, 0.0, 1.0),
        (0.49, 0.5, 0.0, 1.0),
        (0.5, 0.5, 0.0, 1.0),
        (0.75, 0.5, 0.0, 0.5),
        (0.9, 0.5, 0.0, 0.2),
        (1.0, 0.5, 0.0, 0.0),
        (0.9, 0.5, 0.3, 0.3),
        (1.0, 0.5, 0.1, 0.1),
        (0.0, 1.0, 0.0, 1.0),
        (0.25, 1.0, 0.0, 0.75),
        (0.6, 0.0, 0.0, 1.0),
        (1.0, 0.0, 0.0, 1.0),
        (0.333, 0.667, 0.0, 1.0),
        (0.6665, 0.667, 0.0, 0.5),
    ],
)
def test_warmdown_table(progress: float, fraction: float, floor: float, factor: float) -> None:
    assert warmdown(progress, fraction, floor) == pytest.approx(factor)


@given(first=unit, second=unit, fraction=unit, floor=unit)
def test_warmdown_never_rises_and_stays_between_floor_and_one(
    first: float, second: float, fraction: float, floor: float
) -> None:
    early, late = sorted((first, second))
    assert warmdown(early, fraction, floor) >= warmdown(late, fraction, floor) - 1e-9
    assert floor - 1e-9 <= warmdown(first, fraction, floor) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("step", "warmup", "momentum"),
    [
        (0, 1500, 0.92),
        (750, 1500, 0.955),
        (1500, 1500, 0.99),
        (9000, 1500, 0.99),
        (0, 0, 0.99),
        (0, 1, 0.92),
        (1, 1, 0.99),
    ],
)
def test_momentum_table(step: int, warmup: int, momentum: float) -> None:
    assert momentum_at(step, 0.92, 0.99, warmup) == pytest.approx(momentum)
