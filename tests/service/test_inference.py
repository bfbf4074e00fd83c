from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from service.field_records import field_records
from service.inference import (
    FIELD_DENSITIES,
    Density,
    Summary,
    fixed_z,
    one_sample,
    paired,
    pooled_z,
    power,
    seeds_needed,
    welch,
)
from service.stats import Sample

# Seeds' val_bpb as published in openai/parameter-golf: READMEs of #52, #77, #1493, #1529, #1736; text of #1769.
PR52 = {1337: 1.20143417, 1338: 1.19945102, 1339: 1.20319508}
PR77 = {0: 1.1927, 1: 1.1935, 2: 1.1921, 3: 1.1929}  # its seeds aren't named
PR1493 = {42: 1.08079, 314: 1.08103, 999: 1.08118}
PR1529 = {1337: 1.0751, 2024: 1.0765, 42: 1.0759}
PR1736 = {42: 1.06610, 0: 1.06473, 1234: 1.06563}
PR1769 = {314: 1.06356801, 2025: 1.06413130, 777: 1.06466993, 1: 1.06509678, 1337: 1.06516558}
NUMBERS = st.floats(0.5, 2.0)
SAMPLES = st.lists(NUMBERS, min_size=2, max_size=9).filter(lambda values: np.std(values) > 1e-6)


def sample(values: dict[int, float] | list[float]) -> Sample:
    return Sample(values=values if isinstance(values, dict) else dict(enumerate(values)))


def claimed(pr: int) -> Sample:
    return next(record.claimed for record in field_records() if record.pr == pr)


def test_pr_49_s_one_sample_test_comes_out_as_printed() -> None:
    test = one_sample(claimed(49), 1.2243657, margin=0.005)
    assert (f"{-(test.statistic or 0):.2f}", test.df, f"{test.p:.6f}") == ("31.42", 2, "0.000506")
    assert f"{test.p:.5f}" == "0.00051"  # in its README


def test_pr_52_s_one_sample_test_comes_out_as_printed() -> None:
    assert (f"{one_sample(sample(PR52), 1.21613611, 0.005).p:.3f}", sample(PR52).n) == ("0.006", 3)
    # Its t of 9.06 follows from the mean and the rounded spread in its README; from the seeds themselves it is 9.04.
    printed = one_sample(Summary(n=3, mean=1.20136009, sd=0.00187), 1.21113611)
    assert f"{-(printed.statistic or 0):.1f}" == "9.1"
    assert -(printed.statistic or 0) == pytest.approx(9.06, abs=0.006)
    assert f"{printed.p:.4f}" == "0.0060"


def test_pr_77_s_one_sample_test_comes_out_as_printed() -> None:
    test = one_sample(sample(PR77), 1.195)
    assert (f"{test.p:.5f}", f"{test.p:.8f}") == ("0.00234", "0.00234486")


def test_pr_1019_s_welch_test_against_pr_549_comes_out_as_printed() -> None:
    test = welch(claimed(1019), claimed(549))
    assert (f"{test.statistic:.4f}", f"{test.df:.4f}", f"{test.p:.4f}") == ("-11.8339", "3.3063", "0.0004")
    assert (f"{test.statistic:.3f}", f"{test.df:.2f}") == ("-11.834", "3.31")
    in_nats = welch(claimed(1019), claimed(549), margin=FIELD_DENSITIES["sp1024"].bpb(0.005))
    assert f"{in_nats.p:.5f}" == "0.00955"


@pytest.mark.parametrize(
    ("ours", "theirs", "digits", "expected"),
    [
        (claimed(1514), sample(PR1493), 3, "0.020"),
        (sample(PR1529), claimed(1514), 3, "0.001"),
        (sample(PR1769), sample(PR1736), 3, "0.063"),
        (sample(PR1769), sample(PR1736), 4, "0.0625"),
    ],
    ids=["#1514 vs #1493", "#1529 vs #1514", "#1769 vs #1736", "#1769 vs #1736, a digit more"],
)
def test_the_maintainers_welch_tests_come_out_as_printed(
    ours: Sample, theirs: Sample, digits: int, expected: str
) -> None:
    assert f"{welch(ours, theirs).p:.{digits}f}" == expected


def test_the_speedrun_s_z_test_comes_out_as_printed() -> None:
    # A submission to modded-nanogpt's track 3: 16 runs, mean 3.27853, sigma 0.0013.
    test = fixed_z(Summary(n=16, mean=3.27853, sd=0.00080602), 3.28, 0.0013)
    assert (f"{-(test.statistic or 0):.4f}", f"{test.p:.2e}", test.df) == ("4.5231", "3.05e-06", None)


@pytest.mark.parametrize(
    ("pr", "nats", "bpb"),
    [(1019, 1.68845, 0.002961), (1285, 2.30103, 0.002173), (1394, 2.58309, 0.001936), (1787, 2.18837, 0.002285)],
)
def test_nats_and_bits_per_byte_are_those_of_the_field(pr: int, nats: float, bpb: float) -> None:
    record = next(record for record in field_records() if record.pr == pr)
    density = FIELD_DENSITIES[record.tokenizer]
    assert density.nats_per_bpb == pytest.approx(nats, abs=1e-9)
    assert density.bpb(0.005) == pytest.approx(bpb, abs=6e-7)
    assert density.nats(density.bpb(0.7)) == pytest.approx(0.7)


def test_bytes_per_token_are_measured_from_a_score_in_both_units() -> None:
    density = Density.measured("sp1024", 1.88156874, 1.11437394)  # #1019, seed 42
    assert density.nats_per_bpb == pytest.approx(1.68845, abs=5e-6)
    assert density.bytes_per_token == pytest.approx(1.68845 / math.log(2), abs=1e-5)


def test_nats_are_never_compared_across_tokenizers() -> None:
    ours, theirs = FIELD_DENSITIES["sp8192"], FIELD_DENSITIES["sp1024"]
    assert ours.nats_from(1.08, 1.09, ours) == pytest.approx(-0.01 * 2.58309)
    with pytest.raises(ValueError, match="sp8192 and sp1024 can't be compared"):
        ours.nats_from(1.08, 1.09, theirs)
    with pytest.raises(ValueError, match="above 0"):
        Density(tokenizer="x", bytes_per_token=0.0)


@given(SAMPLES, SAMPLES, st.floats(0, 0.1))
def test_every_test_agrees_with_scipy_s_own(left: list[float], right: list[float], margin: float) -> None:
    ours, theirs = sample(left), sample(right)
    shifted = [value + margin for value in left]
    expected = scipy.stats.ttest_ind(shifted, right, equal_var=False, alternative="less")
    found = welch(ours, theirs, margin)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.df == pytest.approx(expected.df, rel=1e-6)
    alone = scipy.stats.ttest_1samp(shifted, 1.0, alternative="less")
    assert one_sample(ours, 1.0, margin).p == pytest.approx(alone.pvalue, rel=1e-6, abs=1e-12)
    pooled = scipy.stats.ttest_ind(shifted, right, equal_var=True, alternative="less")
    assert pooled_z(ours, theirs, margin).statistic == pytest.approx(pooled.statistic, rel=1e-6, abs=1e-9)
    assert pooled_z(ours, theirs, margin).p == pytest.approx(
        scipy.stats.norm.cdf(pooled.statistic), rel=1e-6, abs=1e-12
    )


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=9))
def test_the_paired_test_is_scipy_s(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (sample([pair[i] for pair in pairs]) for i in (0, 1))
    differences = [a - b for a, b in pairs]
    if np.std(differences) > 1e-6:
        expected = scipy.stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs], alternative="less")
        assert paired(ours, theirs).p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


def test_without_a_spread_there_is_no_p_and_the_reason_is_said() -> None:
    single, same = sample([1.0]), sample([1.0, 1.0])
    assert one_sample(single, 1.1).missing == "ours: 1 seed without a spread"
    assert one_sample(same, 1.1).p is None
    assert welch(sample([1.0, 1.1]), single).missing == "theirs: 1 seed without a spread"
    assert welch(same, same).missing == "neither side has a spread"
    assert pooled_z(single, single).missing == "neither side has a spread"
    assert paired(sample({1: 1.0}), sample({2: 1.0})).missing == "no seed in common"
    assert paired(same, same).missing == "no spread over 2 pairs"
    with pytest.raises(ValueError, match="got 0"):
        fixed_z(single, 1.0, 0.0)


@pytest.mark.parametrize(
    ("gain", "n", "two"), [(0.001, 3, True), (0.0005, 5, True), (0.0007, 4, False), (0.0, 3, True)]
)
def test_power_is_how_often_the_test_succeeds_in_simulation(gain: float, n: int, two: bool) -> None:
    dice, sd, alpha, rounds = np.random.default_rng(0), 0.0006, 0.05, 20_000
    ours = 1.0 - gain + sd * dice.standard_normal((rounds, n))
    if two:
        found = scipy.stats.ttest_ind(ours, 1.0 + sd * dice.standard_normal((rounds, n)), axis=1, alternative="less")
    else:
        found = scipy.stats.ttest_1samp(ours, 1.0, axis=1, alternative="less")
    share = float(np.mean(found.pvalue < alpha))
    assert power(gain, sd, n, alpha, two_samples=two) == pytest.approx(share, abs=4 * math.sqrt(0.25 / rounds))


@pytest.mark.parametrize(("gain", "sd"), [(0.002, 0.0006), (0.0005, 0.0006), (0.0001, 0.0007)])
def test_seeds_needed_is_the_smallest_number_with_that_power(gain: float, sd: float) -> None:
    n = seeds_needed(gain, sd)
    assert n is not None
    assert power(gain, sd, n) >= 0.8
    assert n == 2 or power(gain, sd, n - 1) < 0.8


def test_no_number_of_seeds_shows_no_gain() -> None:
    assert seeds_needed(0.0, 0.001) is None
    assert seeds_needed(1e-9, 0.001) is None
    with pytest.raises(ValueError, match="got 1"):
        power(0.1, 0.1, 1)
