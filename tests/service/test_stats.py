from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from service.stats import Sample, show, spread

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
VALUES = st.dictionaries(st.integers(0, 99), NUMBERS, min_size=1, max_size=9)


@given(VALUES)
def test_the_mean_is_numpy_s(values: dict[int, float]) -> None:
    sample = Sample(values=values)
    assert sample.mean == pytest.approx(np.mean(list(values.values())), rel=1e-9, abs=1e-9)
    assert sample.n == len(values)


@given(VALUES.filter(lambda values: len(values) > 1))
def test_the_spread_is_numpy_s_over_n_minus_one(values: dict[int, float]) -> None:
    expected = np.std(list(values.values()), ddof=1)
    assert Sample(values=values).sd == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_spread_of_a_plain_case_is_over_n_minus_one_and_not_n() -> None:
    assert Sample(values={1: 1.0, 2: 2.0, 3: 6.0}).sd == pytest.approx(7**0.5)


def test_the_mean_does_not_lose_small_numbers_beside_large_ones() -> None:
    assert Sample(values={1: 1e16, 2: 1.0, 3: -1e16}).mean == pytest.approx(1 / 3)


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    assert Sample(values={42: 2.0}).sd is None
    assert Sample(values={}).sd is None
    with pytest.raises(ValueError, match="no seed has finished"):
        _ = Sample(values={}).mean


@given(VALUES, VALUES)
def test_a_paired_difference_is_taken_seed_by_seed_where_both_have_one(
    left: dict[int, float], right: dict[int, float]
) -> None:
    paired = Sample(values=left).minus(Sample(values=right))
    both = sorted(left.keys() & right.keys())
    assert sorted(paired.values) == both
    expected = np.array([left[seed] for seed in both]) - np.array([right[seed] for seed in both])
    assert [paired.values[seed] for seed in both] == expected.tolist()


def test_pairing_sees_a_small_gain_under_a_large_spread_between_seeds() -> None:
    base = {1: 1.0, 2: 5.0, 3: 9.0}
    paired = Sample(values={seed: v - 0.25 for seed, v in base.items()}).minus(Sample(values=base))
    assert paired.mean == -0.25
    assert paired.sd == 0


def test_a_sample_is_shown_with_spread_and_count() -> None:
    assert show(Sample(values={1: 2.25, 2: 2.75})) == "2.5000 ± 0.3536 (n=2)"
    assert show(Sample(values={1: 2.25, 2: 2.75}), digits=1) == "2.5 ± 0.4 (n=2)"
    assert show(Sample(values={1: 2.25})) == "2.2500 (n=1)"
    assert show(Sample(values={})) == "- (n=0)"
    assert spread(Sample(values={1: 2.25, 2: 2.75})) == "2.5000 ± 0.3536"
    assert spread(Sample(values={1: 2.25})) == "2.2500"
    assert spread(Sample(values={})) == "-"


def test_the_confidence_interval_is_student_s() -> None:
    # 1, 2, 3: mean 2, sd 1; t(0.975, 2) = 4.302653 (any table).
    assert Sample(values={1: 1.0, 2: 2.0, 3: 3.0}).ci95 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert Sample(values={1: 1.0}).ci95 is None


PAIRS = st.dictionaries(st.integers(0, 99), st.tuples(*2 * [st.floats(-10, 10)]), min_size=2, max_size=9)


@given(PAIRS)
def test_the_p_of_paired_differences_is_that_of_scipy_s_paired_test_to_one_side(
    pairs: dict[int, tuple[float, float]],
) -> None:
    ours, base = (Sample(values={seed: pair[i] for seed, pair in pairs.items()}) for i in (0, 1))
    paired = ours.minus(base)
    if paired.sd is not None and paired.sd > 1e-6:
        test = scipy.stats.ttest_rel(list(ours.values.values()), list(base.values.values()), alternative="less")
        assert paired.p_below == pytest.approx(test.pvalue, rel=1e-6, abs=1e-9)


def test_where_there_is_no_test_there_is_no_p() -> None:
    assert Sample(values={1: -1.0}).p_below is None
    assert Sample(values={1: -1.0, 2: -1.0}).p_below is None
