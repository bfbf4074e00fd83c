"""Statistics over seeds. Standard deviations are of the sample (n - 1) and say so."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One number per seed."""

    values: Mapping[int, float]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN is never a number here: an empty sample has no mean."""
        if not self.values:
            raise ValueError("no seed has finished, so there is no mean")
        return math.fsum(self.values.values()) / self.n

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1); None below two seeds."""
        if self.n < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values.values()) / (self.n - 1))

    @property
    def ci95(self) -> float | None:
        """Half the width of the 95 % confidence interval of the mean, by Student's t; None below two seeds."""
        if self.sd is None:
            return None
        return _quantile(0.975, self.n - 1) * self.sd / math.sqrt(self.n)

    @property
    def p_below(self) -> float | None:
        """One-sided p of the mean being below 0, by Student's t: of paired differences, the paired t-test. None where
        there is no test: below two seeds, or no spread at all."""
        if not self.sd:
            return None
        from scipy.special import stdtr

        return float(stdtr(self.n - 1, self.mean * math.sqrt(self.n) / self.sd))

    def minus(self, other: Sample) -> Sample:
        """Differences on the seeds that both have: the paired comparison on shared artifacts."""
        return Sample(values={seed: v - other.values[seed] for seed, v in self.values.items() if seed in other.values})


@functools.cache
def _quantile(p: float, df: int) -> float:
    """Of Student's t."""
    from scipy.special import stdtrit  # 100 times as fast as scipy.stats.t, which calls it; slow to import all the same

    return float(stdtrit(df, p))


def spread(sample: Sample, digits: int = 4) -> str:
    """``2.2515 ± 0.0031``."""
    if not sample.n:
        return "-"
    return f"{sample.mean:.{digits}f}" + (f" ± {sample.sd:.{digits}f}" if sample.sd is not None else "")


def show(sample: Sample, digits: int = 4) -> str:
    """``2.2515 ± 0.0031 (n=3)``."""
    return f"{spread(sample, digits)} (n={sample.n})"
