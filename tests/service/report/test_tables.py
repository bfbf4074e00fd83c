from __future__ import annotations

import pytest

from service.report.facts import Cap
from service.report.tables import cap_cell


@pytest.mark.parametrize(
    ("worst", "cap", "slack", "text", "tone"),
    [
        (273_862, 400_000, 0.0, "68.5 %", ""),
        (699_806, 700_000, 0.0, "99.972 %", ""),
        (700_000, 700_000, 0.0, "100.0 %", ""),
        (700_001, 700_000, 0.0, "100.000143 %", "bad"),
        (600.012, 600.0, 1.8, "100.002 %", ""),
        (601.9, 600.0, 1.8, "100.3 %", "bad"),
    ],
)
def test_a_share_of_a_cap_is_never_rounded_onto_it_and_a_step_that_ran_over_is_within(
    worst: float, cap: float, slack: float, text: str, tone: str
) -> None:
    cell = cap_cell(Cap(worst=worst, cap=cap, slack=slack), "{:,.0f}")
    assert (cell.note, cell.tone) == (text, tone)


def test_what_was_not_measured_has_no_share() -> None:
    assert cap_cell(Cap(worst=None, cap=5.0), "{:,.0f}").text == "–"
    assert cap_cell(Cap(worst=5.0, cap=None), "{:,.0f}", "no code").note == "no code"
