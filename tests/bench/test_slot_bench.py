"""The bench of SLOT's engine in small: that it compares like with like; how fast is for `caddie bench slot` to say."""

from __future__ import annotations

import math

import pytest
import torch

from model.bench.pairs import ratio
from model.bench.slot import CAP, FIT, GRID, against_plain, plain_slot, windows_of
from model.slot.fit import slot_nats


def test_both_sides_of_the_pair_give_the_same_losses() -> None:
    figures = against_plain(B=2, T=24, S=8, pairs=1)
    assert figures["max_abs_diff_nats"] < 1e-5
    assert figures["median"] == pytest.approx(figures["first_s"] / figures["second_s"])


def test_the_plain_side_really_fits_and_only_on_the_masked_rows() -> None:
    hidden, head, targets, mask = windows_of(B=2, T=24, S=8, D=32, V=64)
    fitted = plain_slot(hidden, head, targets, mask, FIT)
    before = torch.nn.functional.cross_entropy(
        (CAP * torch.tanh(hidden @ head.T / CAP)).flatten(0, 1), targets.flatten(), reduction="none"
    ).view(2, 24)
    assert fitted[mask].mean() < before[mask].mean() - 0.1
    (engine,) = slot_nats(hidden, head, targets, mask, [FIT], cap=CAP)
    torch.testing.assert_close(engine, fitted[mask], atol=1e-5, rtol=0)


def test_the_grid_holds_sixteen_different_configurations() -> None:
    assert len(set(GRID)) == 16


def test_a_ratio_is_the_median_over_pairs_of_both_sides_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    found = ratio("two sides", lambda: calls.append("a"), lambda: calls.append("b"), pairs=3)
    assert calls == ["a", "b"] * 4, "one pair before, which doesn't count"
    assert found.lowest <= found.median <= found.highest
    assert math.isfinite(found.median)
    assert capsys.readouterr().err.count("two sides") == 3
