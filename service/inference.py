"""Whether one mean lies below another: one-sided tests, what they can see, and the units they are stated in.

Scores are bits per byte, lower is better, and p is always that of a true mean no better than what is claimed, so that a
small p speaks for the claim. Every test takes samples, or published summaries (n, mean, sd) where no seed is known.
Everything rests on ``scipy.special``: ``scipy.stats`` takes 100 times as long for the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from service.stats import Sample

MOST_SEEDS = 10_000
"""More than these nobody runs."""


class Measured(Protocol):
    """What a test needs of one side."""

    @property
    def n(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def sd(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A published mean without its seeds."""

    n: int
    mean: float
    sd: float | None
    """Of the sample (n - 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """A one-sided test that ours lies more than ``margin`` below theirs."""

    name: str
    difference: float
    """Ours minus theirs; negative is better."""
    margin: float
    statistic: float | None = None
    """Of t or z; negative speaks for the claim."""
    df: float | None = None
    """Degrees of freedom; None for z."""
    p: float | None = None
    missing: str = ""
    """Why there is no p."""

    __test__ = False  # pytest: no class of tests


def one_sample(ours: Measured, target: float, margin: float = 0.0) -> Test:
    """Student's t against a number that is taken as known, as the field tested in March (#49, #52, #77)."""
    test = Test(name="one-sample t", difference=ours.mean - target, margin=margin)
    if not ours.sd:
        return replace(test, missing=_no_spread("ours", ours))
    return _student(test, ours.sd / math.sqrt(ours.n), ours.n - 1)


def welch(ours: Measured, theirs: Measured, margin: float = 0.0) -> Test:
    """Welch's t: two samples, each with a spread of its own (#1019; PR #1902)."""
    test = Test(name="Welch t", difference=ours.mean - theirs.mean, margin=margin)
    if ours.sd is None or theirs.sd is None:
        return replace(test, missing=_no_spread(*(("ours", ours) if ours.sd is None else ("theirs", theirs))))
    a, b = ours.sd**2 / ours.n, theirs.sd**2 / theirs.n
    if not a + b:
        return replace(test, missing="neither side has a spread")
    shares = (a / (a + b)) ** 2 / (ours.n - 1) + (b / (a + b)) ** 2 / (theirs.n - 1)
    return _student(test, math.sqrt(a + b), 1 / shares)


def pooled_z(ours: Measured, theirs: Measured, margin: float = 0.0) -> Test:
    """Normal test with the pooled spread of both, as if that were known: optimistic with few seeds."""
    test = Test(name="pooled-sd z", difference=ours.mean - theirs.mean, margin=margin)
    squares = sum((side.n - 1) * side.sd**2 for side in (ours, theirs) if side.sd is not None)
    if not squares:
        return replace(test, missing="neither side has a spread")
    sd = math.sqrt(squares / (ours.n + theirs.n - 2))
    return _normal(test, sd * math.sqrt(1 / ours.n + 1 / theirs.n))


def fixed_z(ours: Measured, target: float, sd: float, margin: float = 0.0) -> Test:
    """Normal test against a known number, with a spread of one seed that is taken as known, as the speedrun does.

    Raises:
        ValueError: ``sd`` isn't above 0.
    """
    if not sd > 0:
        raise ValueError(f"a fixed sd must be above 0, got {sd}")
    test = Test(name=f"z with sd {sd:.3g}", difference=ours.mean - target, margin=margin)
    return _normal(test, sd / math.sqrt(ours.n))


def paired(ours: Sample, theirs: Sample, margin: float = 0.0) -> Test:
    """Student's t on the differences of the seeds that both have: scores on the same trained artifacts."""
    differences = ours.minus(theirs)
    if not differences.n:
        return Test(name="paired t", difference=ours.mean - theirs.mean, margin=margin, missing="no seed in common")
    test = one_sample(differences, 0.0, margin)
    return replace(test, name="paired t", missing=test.missing and f"no spread over {differences.n} pairs")


def power(gain: float, sd: float, n: int, alpha: float = 0.01, *, two_samples: bool = True) -> float:
    """How probable it is that ``n`` seeds (a side) show a true ``gain`` beyond the margin at ``alpha``, one-sided, when
    one seed spreads by ``sd``; with ``two_samples`` false against a known number, or of ``n`` pairs.

    Raises:
        ValueError: fewer than 2 seeds, no spread, or an ``alpha`` outside 0 to 1.
    """
    if n < 2 or not sd > 0 or not 0 < alpha < 1:
        raise ValueError(f"power needs n of 2 or more, an sd above 0, alpha between 0 and 1, got {n}, {sd}, {alpha}")
    from scipy.special import nctdtr, stdtrit

    df = 2 * (n - 1) if two_samples else n - 1
    shift = gain / (sd * math.sqrt((2 if two_samples else 1) / n))
    return 1.0 - float(nctdtr(df, shift, stdtrit(df, 1 - alpha)))


def seeds_needed(
    gain: float, sd: float, alpha: float = 0.01, wanted: float = 0.8, *, two_samples: bool = True
) -> int | None:
    """The fewest seeds (a side) with ``wanted`` power; None where :data:`MOST_SEEDS` aren't enough, as for no gain.

    Raises:
        ValueError: as :func:`power`.
    """

    def enough(n: int) -> bool:
        return power(gain, sd, n, alpha, two_samples=two_samples) >= wanted

    if gain <= 0 or not enough(MOST_SEEDS):
        return None
    low, high = 1, 2
    while not enough(high):
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True, kw_only=True, slots=True)
class Density:
    """How many bytes of text a token of one tokenizer stands for, measured on the validation text. Nats per token of
    two tokenizers can't be compared; bits per byte can."""

    tokenizer: str
    bytes_per_token: float

    def __post_init__(self) -> None:
        if not 0 < self.bytes_per_token < math.inf:
            raise ValueError(f"bytes per token of {self.tokenizer} must be above 0, got {self.bytes_per_token}")

    @classmethod
    def measured(cls, tokenizer: str, val_loss: float, val_bpb: float) -> Density:
        """From a score in both units: nats per token and bits per byte."""
        return cls(tokenizer=tokenizer, bytes_per_token=val_loss / val_bpb / math.log(2))

    @property
    def nats_per_bpb(self) -> float:
        """Nats per token in one bit per byte: ln 2 times bytes per token."""
        return math.log(2) * self.bytes_per_token

    def bpb(self, nats: float) -> float:
        """Nats per token as bits per byte."""
        return nats / self.nats_per_bpb

    def nats(self, bpb: float) -> float:
        """Bits per byte as nats per token."""
        return bpb * self.nats_per_bpb

    def nats_from(self, ours_bpb: float, theirs_bpb: float, theirs: Density) -> float:
        """Ours minus theirs in nats per token.

        Raises:
            ValueError: the tokenizers differ.
        """
        if theirs.tokenizer != self.tokenizer:
            raise ValueError(
                f"nats per token of {self.tokenizer} and {theirs.tokenizer} can't be compared; compare bits per byte"
            )
        return self.nats(ours_bpb - theirs_bpb)


FIELD_DENSITIES = {
    name: Density(tokenizer=name, bytes_per_token=nats / math.log(2))
    for name, nats in {
        "sp1024": 1.68845,
        "sp4096": 2.30103,
        "sp8192": 2.58309,
        "sp8192-caseops": 2.18837,
    }.items()
}
"""Of the field's tokenizers on its validation text, from the two units of final lines (openai/parameter-golf
#1019, #1285, #1394, #1787)."""


def _student(test: Test, error: float, df: float) -> Test:
    from scipy.special import stdtr

    statistic = (test.difference + test.margin) / error
    return replace(test, statistic=statistic, df=df, p=float(stdtr(df, statistic)))


def _normal(test: Test, error: float) -> Test:
    from scipy.special import ndtr

    statistic = (test.difference + test.margin) / error
    return replace(test, statistic=statistic, p=float(ndtr(statistic)))


def _no_spread(whose: str, side: Measured) -> str:
    return f"{whose}: {side.n} seed{'s' * (side.n != 1)} without a spread"
