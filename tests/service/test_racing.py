from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.field_records import field_records
from service.racing import (
    PAIRS_OF_THE_FIELD,
    SEEDS_OF_THE_FIELD,
    Prior,
    Racer,
    Racing,
    Standing,
    standing,
    student,
)

SEEDS = (42, 1337, 2024)
SURE = Prior(sd_bpb=0.001, df=1e9)
"""A spread that is known."""


def racers(*rows: tuple[float, ...], together: bool = False, reference: bool = False) -> list[Racer]:
    """One racer a row, of the first seeds' values; ``reference``: the first is one."""
    return [
        Racer(
            values=dict(zip(SEEDS, row, strict=False)),
            artifacts="same" if together else place,
            reference=reference and not place,
        )
        for place, row in enumerate(rows)
    ]


def everything(rows: np.ndarray[Any, Any], **how: Any) -> list[Racer]:
    """Racers with seeds 0, 1, ..."""
    return [Racer(values=dict(enumerate(row)), artifacts=i, **how) for i, row in enumerate(rows.tolist())]


def test_the_first_seed_of_everyone_is_asked_first_and_then_the_next_of_those_left() -> None:
    racing = Racing(share=1.0)
    assert standing(racers((), (), ()), SEEDS, racing).asks == ((0, 42), (1, 42), (2, 42))
    assert standing(racers((1.0,), (), (1.1,)), SEEDS, racing).asks == ((1, 42),)
    after = standing(racers((1.0,), (1.0001,), (1.1,)), SEEDS, racing)
    assert after.asks == ((0, 1337), (1, 1337))
    assert {i: stop.after for i, stop in after.stopped.items()} == {2: 1}


def test_the_race_ends_with_those_who_have_all_seeds_best_first() -> None:
    done = standing(racers((1.0, 1.001, 1.0), (1.0001, 1.0, 1.0), (1.1,)), SEEDS, Racing(share=1.0))
    assert done.asks == ()
    assert done.finished == (1, 0)
    assert done.runs == 7


@given(st.lists(st.lists(st.floats(0.9, 0.91), min_size=3, max_size=3), min_size=2, max_size=6), st.data())
def test_decisions_are_the_same_in_whatever_order_the_numbers_come(
    rows: list[list[float]], data: st.DataObject
) -> None:
    whole = standing(racers(*map(tuple, rows)), SEEDS, Racing())
    have: list[dict[int, float]] = [{} for _ in rows]
    while True:
        now = standing([Racer(values=dict(v), artifacts=i) for i, v in enumerate(have)], SEEDS, Racing())
        if not now.asks:
            break
        racer, seed = data.draw(st.sampled_from(now.asks))
        have[racer][seed] = rows[racer][SEEDS.index(seed)]
    assert now == whole
    assert sum(map(len, have)) == whole.runs


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("seen", "of"), [(1, 3), (2, 3), (3, 5)])
def test_hopeless_is_the_quantile_of_what_the_seeds_to_come_can_still_turn_round(
    seen: int, of: int, together: bool
) -> None:
    # By simulation: the difference over the seen seeds, among pairs whose sign over all seeds is the other one.
    dice = np.random.default_rng(0)
    sd = SURE.sd_bpb if together else SURE.sd_bpb * math.sqrt(2)
    steps = dice.normal(0, sd, (400_000, of))
    # D_n - D_S, which is independent of D_S; the one that just ties over all seeds is the hardest.
    turn = steps[:, :seen].mean(1) - steps.mean(1)
    bar = float(np.quantile(turn, 1 - 0.05 / (of - 1)))
    racing = Racing(share=1.0, seeds=SURE, pairs=SURE)
    for factor, stays in ((0.95, True), (1.05, False)):
        rows = np.zeros((2, seen))
        rows[1] += bar * factor
        two = [
            Racer(values=dict(enumerate(row)), artifacts=0 if together else i) for i, row in enumerate(rows.tolist())
        ]
        # Looks before this one have the same gap and wider bars.
        assert (1 not in standing(two, range(of), racing).stopped) is stays


def test_the_test_stops_the_grids_winner_no_more_often_than_it_may() -> None:
    dice, miss, lost = np.random.default_rng(1), 0.2, 0
    replays = 2000
    for _ in range(replays):
        values = dice.normal(0, 0.0007, 6)[:, None] + dice.normal(0, 0.001, (6, 4))
        done = standing(everything(values), range(4), Racing(share=1.0, miss=miss, seeds=SURE))
        lost += int(values.mean(1).argmin()) in done.stopped
    assert lost / replays <= miss + 3 * math.sqrt(miss * (1 - miss) / replays)


def test_more_rivals_and_more_looks_make_it_harder_to_stop_one() -> None:
    def is_stopped(others: int, seeds: int) -> bool:
        values = np.zeros((2 + others, 1))
        values[1] = 0.0031
        return 1 in standing(everything(values), range(seeds), Racing(share=1.0, seeds=SURE)).stopped

    assert is_stopped(others=0, seeds=2)
    assert is_stopped(others=0, seeds=3)
    assert not is_stopped(others=30, seeds=3)
    assert not is_stopped(others=0, seeds=400)


def test_pairing_tells_what_the_seeds_noise_hides() -> None:
    rows = ((1.000, 1.010), (1.0005, 1.0106), (1.0006, 1.0107))
    told = standing(racers(*rows, together=True), SEEDS, Racing(share=1.0))
    blind = standing(racers(*rows), SEEDS, Racing(share=1.0))
    assert set(told.stopped) <= {1, 2}
    assert blind.stopped == {}
    noisy = standing(racers((1.0, 1.01), (1.01, 1.0), (1.0, 1.0), together=True), SEEDS, Racing(share=1.0))
    assert told.correlation > 0.99
    assert noisy.correlation < 0.3


def test_the_learned_spreads_are_the_pooled_sums_of_squares_of_the_priors_and_the_data() -> None:
    dice = np.random.default_rng(2)
    values = 1 + dice.normal(0, 0.002, (4, 5))
    apart = standing(everything(values), range(5), Racing(share=1.0, miss=1e-12))
    squares = ((values - values.mean(1, keepdims=True)) ** 2).sum()
    expected = (8 * SEEDS_OF_THE_FIELD.sd_bpb**2 + squares) / (8 + 4 * 4)
    assert apart.seeds.sd_bpb == pytest.approx(math.sqrt(expected))
    assert apart.seeds.df == 8 + 4 * 4
    assert apart.pairs == PAIRS_OF_THE_FIELD

    shared = [Racer(values=dict(enumerate(row)), artifacts="same") for row in values.tolist()]
    together = standing(shared, range(5), Racing(share=1.0, miss=1e-12))
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    expected = (2 * PAIRS_OF_THE_FIELD.sd_bpb**2 + 2 * (rest**2).sum()) / (2 + 3 * 4)
    assert together.pairs.sd_bpb == pytest.approx(math.sqrt(expected))
    within = (8 * SEEDS_OF_THE_FIELD.sd_bpb**2 + squares / 4) / (8 + 4)
    assert together.seeds.sd_bpb == pytest.approx(math.sqrt(within))


def test_the_priors_are_what_the_records_show() -> None:
    claimed = [r.claimed for r in field_records() if r.state == "merged" and r.claimed.n > 1]
    pairs = [gain for r in field_records() for gain in r.gains if gain.n > 1]

    def pooled(samples: list[Any]) -> float:
        squares = sum((s.n - 1) * np.var(list(s.values.values()), ddof=1) for s in samples)
        return math.sqrt(squares / sum(s.n - 1 for s in samples))

    assert pooled(claimed) == pytest.approx(SEEDS_OF_THE_FIELD.sd_bpb, rel=0.1)
    honest = [gain for gain in pairs if abs(gain.mean) < 0.1]  # not memorised, as #1303's
    assert pooled(honest) == pytest.approx(PAIRS_OF_THE_FIELD.sd_bpb, rel=0.1)


@pytest.mark.parametrize("configs", [2, 3, 4, 8, 16, 33])
@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_runs_stay_within_their_share_unless_one_config_alone_needs_more(
    configs: int, seeds: int, share: float
) -> None:
    values = 1 + np.random.default_rng(configs).normal(0, 1e-6, (configs, seeds))  # nobody is hopeless
    done = standing(everything(values), range(seeds), Racing(share=share))
    assert done.runs <= max(share * configs * seeds, configs + seeds - 1) + 1e-9
    assert done.finished


def test_the_reference_is_never_stopped_costs_nothing_and_stops_others() -> None:
    done = standing(racers((1.1, 1.1, 1.1), (1.0, 1.0, 1.0), reference=True), SEEDS, Racing())
    assert done.stopped == {}
    assert done.finished == (1, 0)
    assert done.runs == 3
    beaten = standing(racers((1.0, 1.0, 1.0), (1.1,), reference=True), SEEDS, Racing())
    assert set(beaten.stopped) == {1}
    assert beaten.finished == (0,)


def test_who_lost_a_seed_is_out_and_was_not_stopped() -> None:
    gone = standing(racers((1.0, 1.0, 1.0), (0.9,)), SEEDS, Racing(share=1.0, seeds=Prior(sd_bpb=1, df=9)), failed={1})
    assert gone.finished == (0,)
    assert gone.stopped == {}


def test_seeds_beyond_the_look_change_nothing() -> None:
    near = ((1.0,), (1.0001,), (1.1,))
    far = ((1.0,), (1.0001,), (1.1, 0.1, 0.1))
    assert standing(racers(*near), SEEDS, Racing()).stopped == standing(racers(*far), SEEDS, Racing()).stopped


@pytest.mark.parametrize(("eta", "seeds", "left_after"), [(3, 10, {1: 3, 3: 1}), (2, 5, {1: 4, 2: 2, 4: 1})])
def test_asha_keeps_the_best_of_eta_at_seeds_1_eta_eta_squared(
    eta: int, seeds: int, left_after: dict[int, int]
) -> None:
    values = np.linspace(1.0, 1.00001, 9)[:, None] + np.zeros((1, seeds))
    done = standing(everything(values), range(seeds), Racing(rule="asha", eta=eta))
    counts, left = {}, 9
    for after, stops in itertools.groupby(sorted(stop.after for stop in done.stopped.values())):
        left -= len(list(stops))
        counts[after] = left
    assert counts == left_after
    assert done.finished == (0,)


@pytest.mark.parametrize(("probability", "df", "expected"), [(0.95, 2, 2.919986), (0.975, 8, 2.306004)])
def test_the_quantile_is_students(probability: float, df: float, expected: float) -> None:
    assert student(probability, df) == pytest.approx(expected, rel=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rule": ({"rule": "luck"}, "'luck'"),
    "a miss": ({"miss": 1.0}, "miss .* got 1.0"),
    "a share": ({"share": 0.0}, "share .* got 0.0"),
    "an eta": ({"eta": 1}, "eta .* got 1"),
    "a repeat": ({"confirm": (1, 1)}, r"twice in \(1, 1\)"),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_with_its_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Racing(**fields)


def test_seeds_that_choose_may_not_confirm() -> None:
    with pytest.raises(ValueError, match="seed 1337 would both choose and confirm"):
        Racing(confirm=(7, 1337)).check(SEEDS)
    with pytest.raises(ValueError, match="2 seeds or more"):
        Racing().check((42,))
    with pytest.raises(ValueError, match=r"above 0, got 0.* and 1"):
        Prior(sd_bpb=0, df=1)
    Racing(confirm=(7,)).check(SEEDS)


def test_every_way_of_standing_has_asks_or_an_end() -> None:
    for counts in itertools.product(range(4), repeat=3):
        rows = [tuple(1.0 + 0.0001 * i for _ in range(count)) for i, count in enumerate(counts)]
        now: Standing = standing(racers(*rows), SEEDS, Racing())
        assert bool(now.asks) != bool(now.finished)
