"""Sweeps played from the field's records, to count what racing finds and what it costs against the whole grid.

A sweep is drawn as true means and noise of seeds. Noise is normal with what a record's own seeds showed: of residuals
r_1..r_n of n seeds, sum_j z_j r_j / sqrt(n - 1) with standard normal z_j has exactly their sample covariance. The z_j
are common to scores of the same trained artifact, so their correlation is kept, too; each record keeps its own spread,
which racing doesn't know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from service.field_records import FieldRecord, field_records
from service.racing import Racer, Racing, standing
from service.stats import Sample

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Configs as they would come out, were every seed of all of them run."""

    true_bpb: Numbers
    """Of each config, without noise."""
    values: Numbers
    """val_bpb (configs, seeds)."""
    artifacts: Sequence[int]
    """Equal for configs that are scored on the same trained artifacts."""

    def racers(self) -> list[Racer]:
        """As :func:`service.racing.standing` takes them, with seeds 0, 1, ..."""
        return [
            Racer(values=dict(enumerate(row)), artifacts=family)
            for row, family in zip(self.values.tolist(), self.artifacts, strict=True)
        ]


Draw = Callable[[Generator, int, int], Sweep]
"""A sweep of so many configs over so many seeds."""


def merged_records() -> tuple[FieldRecord, ...]:
    """The merged ones with more than one seed."""
    return tuple(record for record in field_records() if record.state == "merged" and record.claimed.n > 1)


def residuals(sample: Sample) -> Numbers:
    """Deviations from the mean, in the order of the seeds, over sqrt(n - 1)."""
    values = np.array([sample.values[seed] for seed in sorted(sample.values)])
    scaled: Numbers = (values - values.mean()) / math.sqrt(len(values) - 1)
    return scaled


def draw_records(dice: Generator, configs: int, seeds: int) -> Sweep:
    """The claimed scores of so many different merged records: each config trains its own artifacts."""
    chosen = _choose(dice, [(record, record.claimed) for record in merged_records()], configs)
    return _sweep(dice, chosen, seeds)


def draw_scores(dice: Generator, configs: int, seeds: int) -> Sweep:
    """Any different scores of merged records; those of one record share their artifacts, as in a mixed sweep."""
    pool = [(record, sample) for record in merged_records() for sample in record.scores.values()]
    return _sweep(dice, _choose(dice, pool, configs), seeds)


def draw_knobs(dice: Generator, configs: int, seeds: int) -> Sweep:
    """Settings of a knob of evaluation, on the artifacts of one record: gains as test-time training's in the records
    (normal with their mean and spread), each with the paired noise of some pair of scores in the records."""
    record = merged_records()[dice.integers(len(merged_records()))]
    true = record.claimed.mean + dice.normal(*gains_of_tuning(), configs)
    pairs = [gain for one in field_records() for gain in one.gains if gain.n > 1]
    shared = _noise(dice, residuals(record.claimed), seeds)
    # A pair's noise is of two settings; one's own is 1/sqrt(2) of it.
    own = [_noise(dice, residuals(pairs[dice.integers(len(pairs))]), seeds) / math.sqrt(2) for _ in range(configs)]
    return Sweep(true_bpb=true, values=true[:, None] + shared + np.array(own), artifacts=[0] * configs)


def draw_neighbours(dice: Generator, configs: int, seeds: int) -> Sweep:
    """The same gains as :func:`draw_knobs`, but of training: each config has artifacts, and noise, of its own."""
    records = merged_records()
    true = 1.08 + dice.normal(*gains_of_tuning(), configs)
    own = [_noise(dice, residuals(records[dice.integers(len(records))].claimed), seeds) for _ in range(configs)]
    return Sweep(true_bpb=true, values=true[:, None] + np.array(own), artifacts=list(range(configs)))


def gains_of_tuning() -> tuple[float, float]:
    """Mean and sample standard deviation of what test-time training, and tuning it, gained in the merged records."""
    gains = [
        after.minus(before).mean
        for record in merged_records()
        for (_, before), (name, after) in pairwise(record.scores.items())
        if name.startswith("ttt") and not _is_roundtrip(record, before)
    ]
    return float(np.mean(gains)), float(np.std(gains, ddof=1))


def _is_roundtrip(record: FieldRecord, sample: Sample) -> bool:
    """Whether ``sample`` is without a sliding window, against which a gain is mostly the window's."""
    return sample is record.scores.get("roundtrip")


def _choose(
    dice: Generator, pool: Sequence[tuple[FieldRecord, Sample]], count: int
) -> list[tuple[FieldRecord, Sample]]:
    if count > len(pool):
        raise ValueError(f"{count} configs can't be drawn from {len(pool)}")
    return [pool[i] for i in dice.choice(len(pool), count, replace=False)]


def _sweep(dice: Generator, chosen: Sequence[tuple[FieldRecord, Sample]], seeds: int) -> Sweep:
    records = list(dict.fromkeys(record.folder for record, _ in chosen))
    dies = {record.folder: dice.standard_normal((record.claimed.n, seeds)) for record, _ in chosen}
    true = np.array([sample.mean for _, sample in chosen])
    noise = np.array([residuals(sample) @ dies[record.folder] for record, sample in chosen])
    return Sweep(
        true_bpb=true,
        values=true[:, None] + noise,
        artifacts=[records.index(record.folder) for record, _ in chosen],
    )


def _noise(dice: Generator, of: Numbers, seeds: int) -> Numbers:
    noise: Numbers = of @ dice.standard_normal((len(of), seeds))
    return noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What racing did over many sweeps, beside the whole grid on the same numbers."""

    replays: int
    same: int
    """Replays in which racing found the grid's winner."""
    within_half: int
    """Replays that used at most half of the grid's seed runs."""
    both: int
    runs: float
    """Seed runs used, as a part of the grid's; the mean over the replays."""
    regret_bpb: float
    """True val_bpb of racing's winner above that of the grid's; the mean."""
    flattery_bpb: float
    """How far the winner's mean over the seeds that chose it lies below its true val_bpb; the mean."""

    @property
    def same_share(self) -> float:
        return self.same / self.replays

    @property
    def error(self) -> float:
        """Binomial standard error of ``same_share``."""
        return math.sqrt(self.same_share * (1 - self.same_share) / self.replays)


def replay(draw: Draw, racing: Racing, configs: int, seeds: int, replays: int, start: int = 0) -> Replayed:
    """Race in ``replays`` drawn sweeps; ``start`` seeds the dice."""
    dice = np.random.default_rng(start)
    same = half = both = 0
    runs = regret = flattery = 0.0
    for _ in range(replays):
        sweep = draw(dice, configs, seeds)
        grid = int(sweep.values.mean(axis=1).argmin())
        stand = standing(sweep.racers(), range(seeds), racing)
        winner, part = stand.finished[0], stand.runs / (configs * seeds)
        same += winner == grid
        half += part <= 0.5
        both += winner == grid and part <= 0.5
        runs += part
        regret += float(sweep.true_bpb[winner] - sweep.true_bpb[grid])
        flattery += float(sweep.true_bpb[winner] - sweep.values[winner].mean())
    return Replayed(
        replays=replays,
        same=same,
        within_half=half,
        both=both,
        runs=runs / replays,
        regret_bpb=regret / replays,
        flattery_bpb=flattery / replays,
    )
