from __future__ import annotations

import random

import pytest

from service.errors import BudgetSpent, SpecError
from service.money import Ledger, Price, gpu_hours, parse_budget
from service.spec import GangShape


def test_a_node_hour_is_eight_gpu_hours_and_costs_its_price() -> None:
    assert gpu_hours(GangShape(ranks=8), 3600) == 8
    assert gpu_hours(GangShape(ranks=1, device="cpu"), 450) == 1 / 8
    assert Price().usd(8) == 20
    assert Price(node_usd_per_hour=24).usd(1) == 3
    assert Price().show(24) == "24 GPU-h (60.00 USD)"


@pytest.mark.parametrize(
    ("text", "hours"), [("60usd", 24.0), ("60 USD", 24.0), ("3h", 3.0), ("0.5h", 0.5), (".5usd", 0.2), ("2.h", 2.0)]
)
def test_a_budget_is_dollars_or_gpu_hours(text: str, hours: float) -> None:
    assert parse_budget(text, Price()) == pytest.approx(hours)


@pytest.mark.parametrize("text", ["", "60", "usd", "0usd", "-3h", "1e3usd", "3 hours", "nanusd", "infh", "3h60usd"])
def test_what_is_no_budget_is_refused_with_both_forms(text: str) -> None:
    with pytest.raises(SpecError, match=r"60usd or GPU-hours as 3h"):
        parse_budget(text, Price())


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(SpecError, match="above 0 USD"):
        Price(node_usd_per_hour=price)


def test_what_fits_is_reserved_what_may_fit_waits_and_what_never_fits_is_refused() -> None:
    ledger = Ledger(limit=3.0, expected={"a": 1.0, "b": 1.5, "c": 1.0, "d": 4.0})
    assert ledger.reserve("a", 9.0)
    assert ledger.reserve("b", 9.0)
    assert not ledger.reserve("c", 9.0), "a and b may turn out cheaper"
    with pytest.raises(BudgetSpent, match=r"needs 4 GPU-h \(10\.00 USD\), but of the budget of 3 GPU-h \(7\.50 USD\)"):
        ledger.reserve("d", 9.0)
    ledger.settle("a", 0.25)
    assert ledger.reserve("c", 9.0)
    assert (ledger.spent, ledger.reserved) == (0.25, {"b": 1.5, "c": 1.0})
    ledger.settle("b", 2.0)
    ledger.settle("c", 1.0)
    with pytest.raises(BudgetSpent, match="not launched"):
        ledger.reserve("e", 0.1)
    assert ledger.refused == {"d": 4.0, "e": 0.1}
    assert ledger.story() == "budget: 3.25 GPU-h (8.12 USD) of 3 GPU-h (7.50 USD) spent; 2 not launched for want of it"


def test_whatever_happens_no_more_is_out_than_the_budget_when_nothing_overruns() -> None:
    dice = random.Random(1)
    for _ in range(200):
        ledger = Ledger(limit=dice.uniform(1, 10))
        running: dict[str, float] = {}
        launched = 0.0
        for number in range(60):
            if running and dice.random() < 0.5:
                key, most = running.popitem()
                took = dice.uniform(0, most)
                ledger.settle(key, took)
                launched += took
                continue
            wanted = dice.uniform(0, 3)
            try:
                if ledger.reserve(str(number), wanted):
                    running[str(number)] = wanted
                else:
                    assert running, "nobody waits for money when nothing runs"
            except BudgetSpent:
                assert launched + wanted > ledger.limit
        assert ledger.spent == pytest.approx(launched)
        assert ledger.spent + sum(running.values()) <= ledger.limit * (1 + 1e-6)
        assert ledger.reserved == running


def test_a_try_that_took_nothing_gives_its_reservation_back() -> None:
    ledger = Ledger(limit=1.0)
    assert ledger.reserve("a", 1.0)
    ledger.release("a")
    ledger.release("a")
    assert ledger.reserve("b", 1.0)
    assert ledger.spent == 0
