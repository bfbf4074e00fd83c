"""Racing: after each seed of each config, who goes on, as a pure function of the numbers there are.

What is asked is not which config is truly better, but whether one can still win the whole grid: every config over all S
seeds, the lowest mean wins. Let D_n be the mean difference of two configs over the n first seeds. Then D_n - D_S has
mean 0 and variance v (1/n - 1/S) whatever the true difference is, v being the variance of one seed's difference; and it
is independent of who wins. So a config whose D_n lies above t sqrt(v (1/n - 1/S)) is the grid's winner with a
probability that t sets, and over every rival and every look the probabilities add up to at most ``miss`` (Bonferroni:
``miss / (rivals * looks)`` each).

v: configs that are scored on the same trained artifacts differ only by what scoring adds, so a pair's v is learned
from its own differences, seed by seed. That of configs apart is twice the spread of one over seeds, pooled over the
race. Both start from what the field's logs show (:data:`SEEDS_OF_THE_FIELD`, :data:`PAIRS_OF_THE_FIELD`) and move with
what is observed (G. K. Smyth, Linear models and empirical Bayes methods, 2004).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """What is believed of a standard deviation before anything is seen: it counts like ``df`` observed differences."""

    sd_bpb: float
    df: float

    def __post_init__(self) -> None:
        if not self.sd_bpb > 0 or not self.df > 0:
            raise ValueError(f"a prior's sd_bpb and df must be above 0, got {self.sd_bpb} and {self.df}")

    def after(self, squares: float, df: float) -> Prior:
        """With a sum of squares over ``df`` degrees of freedom added."""
        return Prior(sd_bpb=math.sqrt((self.df * self.sd_bpb**2 + squares) / (self.df + df)), df=self.df + df)


SEEDS_OF_THE_FIELD = Prior(sd_bpb=0.00072, df=8.0)
"""Of one config's val_bpb over seeds. Pooled over 22 sets of logs of merged records of openai/parameter-golf: 0.00072
(48 degrees of freedom); 0.0007 over those in ``service/data``, whose own spreads agree with a single sd. Over 307
submissions the spread of three seeds runs from 0.00025 to 0.0017 (10th and 90th percentile), which is what about 3
degrees of freedom would give; 8 lies between, so that a stack of another noise is learned within two or three seeds."""
PAIRS_OF_THE_FIELD = Prior(sd_bpb=0.00022, df=2.0)
"""Of the difference of two scores on the same artifact, over seeds: pooled over the pairs in ``service/data`` that were
scored before and after (32 degrees of freedom). They differ 25-fold, 0.000025 in #1514 and 0.00063 in #1413, hence so
little weight (Smyth's fit gives 2) and a v of its own for each pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Racing:
    """How a sweep's configs race over its seeds."""

    rule: Literal["test", "asha"] = "test"
    """``test``: who can't win any more is stopped. ``asha``: the best 1/eta go on after seeds 1, eta, eta^2 ... (L. Li
    and others, A system for massively parallel hyperparameter tuning, 2020), each time all are there."""
    miss: float = 0.05
    """At most this often, under the model, the test stops the config that would have won the whole grid."""
    share: float = 0.5
    """Of the grid's seed runs at most: after each look no more go on than can all finish (if only one, then two where
    one of them can). 1: the test alone. At least one config always gets all seeds."""
    eta: int = 3
    confirm: tuple[int, ...] = (314, 999, 2025)
    """Fresh seeds, on which the winner is measured again; none: it isn't."""
    seeds: Prior = SEEDS_OF_THE_FIELD
    pairs: Prior = PAIRS_OF_THE_FIELD

    def __post_init__(self) -> None:
        if self.rule not in ("test", "asha"):
            raise ValueError(f"racing.rule must be 'test' or 'asha', got {self.rule!r}")
        if not 0 < self.miss < 1:
            raise ValueError(f"racing.miss is a probability between 0 and 1, got {self.miss}")
        if not 0 < self.share <= 1:
            raise ValueError(f"racing.share is above 0 and at most 1, got {self.share}")
        if self.eta < 2:
            raise ValueError(f"racing.eta must be 2 or more, got {self.eta}")
        if len(set(self.confirm)) < len(self.confirm):
            raise ValueError(f"racing.confirm: a seed is given twice in {self.confirm}")

    def check(self, seeds: Sequence[int]) -> None:
        """Refuse seeds that can't be raced over.

        Raises:
            ValueError: fewer than two, or one that would both choose and confirm.
        """
        if len(seeds) < 2:
            raise ValueError(f"a race needs 2 seeds or more to stop anyone early, got {len(seeds)}")
        both = sorted(set(seeds) & set(self.confirm))
        if both:
            raise ValueError(f"seed {both[0]} would both choose and confirm; give --confirm seeds that don't choose")


@dataclass(frozen=True, kw_only=True, slots=True)
class Racer:
    """A config in a race."""

    values: Mapping[int, float]
    """val_bpb by seed, of the seeds that have finished."""
    artifacts: Hashable
    """Equal for racers that are scored on the same trained artifacts."""
    reference: bool = False
    """A rival that is never stopped and costs nothing: what the others are compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Why a racer gets no further seeds."""

    after: int
    """Seeds that it had then."""
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a race stands."""

    asks: tuple[tuple[int, int], ...] = ()
    """(racer, seed) to be run next; none: the race is over."""
    stopped: Mapping[int, Stop] = field(default_factory=dict)
    finished: tuple[int, ...] = ()
    """Racers with all seeds, best first; only when the race is over."""
    runs: int = 0
    """Seed runs that the race has used, without the reference's."""
    seeds: Prior
    """Spread of one config over seeds, as far as is known now."""
    pairs: Prior
    """Spread of a difference on the same artifacts, pooled over all pairs, as far as is known now."""

    @property
    def correlation(self) -> float:
        """Between two configs on the same artifacts, over seeds, as learned; 0 where pairing doesn't help."""
        return max(0.0, 1 - self.pairs.sd_bpb**2 / (2 * self.seeds.sd_bpb**2))


def standing(
    racers: Sequence[Racer], seeds: Sequence[int], racing: Racing, failed: Collection[int] = frozenset()
) -> Standing:
    """Who goes on. Looks are taken seed by seed in order, each when all who are left have that seed, and see no later
    one: the same numbers give the same decisions, in whatever order they came and however often this is asked.

    ``failed`` are racers that won't get the seed they lack; they are out, and were not stopped.
    """
    active = list(range(len(racers)))
    paying = sum(not racer.reference for racer in racers)
    stopped: dict[int, Stop] = {}
    spread, pairs, runs = racing.seeds, racing.pairs, 0
    for n in range(1, len(seeds) + 1):
        seen = seeds[:n]
        active = [i for i in active if seen[-1] in racers[i].values or i not in failed]
        runs += sum(not racers[i].reference for i in active)
        missing = tuple((i, seen[-1]) for i in active if seen[-1] not in racers[i].values)
        if missing:
            return Standing(asks=missing, stopped=stopped, runs=runs, seeds=spread, pairs=pairs)
        spread, pairs = _learn(spread, pairs, [racers[i] for i in active], seen)
        if n == len(seeds):
            break
        mean = {i: math.fsum(racers[i].values[seed] for seed in seen) / n for i in active}
        field_ = [i for i in active if not racers[i].reference]
        left = field_
        if racing.rule == "asha":
            if _is_rung(n, racing.eta):
                left = _top(field_, mean, max(1, len(field_) // racing.eta))
            stopped |= {i: Stop(after=n, because=f"not in the best 1/{racing.eta}") for i in field_ if i not in left}
        else:
            chance = racing.miss / (max(1, len(racers) - 1) * (len(seeds) - 1))
            part = math.sqrt(1 / n - 1 / len(seeds))
            rivals = {i: [j for j in active if mean[j] < mean[i]] for i in field_}
            known = {(i, j): _difference(racers[i], racers[j], seen, racing, spread) for i in field_ for j in rivals[i]}
            left = [
                i for i in field_ if all(mean[i] - mean[j] <= _far(1 - chance, known[i, j]) * part for j in rivals[i])
            ]
            stopped |= {i: Stop(after=n, because="can't win any more") for i in field_ if i not in left}
            most = _affordable(racing.share * paying * len(seeds) - runs, len(seeds) - n)
            cut = set(left) - set(_top(left, mean, most))
            stopped |= {i: Stop(after=n, because=f"not in the best {most}, for whom runs are left") for i in cut}
        active = [i for i in active if i not in stopped]
    total = {i: math.fsum(racers[i].values[seed] for seed in seeds) for i in active}
    return Standing(
        stopped=stopped, finished=tuple(_top(active, total, len(active))), runs=runs, seeds=spread, pairs=pairs
    )


def _learn(spread: Prior, pairs: Prior, racers: Sequence[Racer], seen: Sequence[int]) -> tuple[Prior, Prior]:
    """What the newest seed tells of both spreads: its contrast with the mean of the seeds before (Helmert) has the
    variance of one value and is independent of all earlier contrasts, also when racers were stopped in between.

    Racers on the same artifacts move together: between them they are one observation of a config's spread, and their
    deviations from each other are observations of the paired one.
    """
    before = seen[:-1]
    if not before:
        return spread, pairs
    families: dict[Hashable, list[float]] = defaultdict(list)
    for racer in racers:
        earlier = math.fsum(racer.values[seed] for seed in before) / len(before)
        step = (racer.values[seen[-1]] - earlier) * math.sqrt(len(before) / len(seen))
        families[racer.artifacts].append(step)
    for steps in families.values():
        centre = math.fsum(steps) / len(steps)
        spread = spread.after(math.fsum(step**2 for step in steps) / len(steps), 1)
        if len(steps) > 1:
            # A difference of two has twice the variance of one deviation.
            pairs = pairs.after(2 * math.fsum((step - centre) ** 2 for step in steps), len(steps) - 1)
    return spread, pairs


def _difference(one: Racer, other: Racer, seen: Sequence[int], racing: Racing, spread: Prior) -> Prior:
    """What is known of the spread of one seed's difference between two racers."""
    if one.artifacts != other.artifacts:
        return Prior(sd_bpb=math.sqrt(2) * spread.sd_bpb, df=spread.df)
    differences = [one.values[seed] - other.values[seed] for seed in seen]
    centre = math.fsum(differences) / len(differences)
    return racing.pairs.after(math.fsum((each - centre) ** 2 for each in differences), len(differences) - 1)


def _far(probability: float, known: Prior) -> float:
    """The difference that one seed's exceeds by chance only with 1 - ``probability``."""
    return student(probability, known.df) * known.sd_bpb


def _affordable(runs: float, seeds: int) -> int:
    """How many may go on with ``runs`` left and ``seeds`` to go."""
    all_finish = math.floor(runs / seeds + 1e-9)
    return max(all_finish, 2 if 2 + (seeds - 1) <= runs + 1e-9 else 1)


def _top(which: Sequence[int], mean: Mapping[int, float], count: int) -> list[int]:
    """The best ``count``; of equals the earlier."""
    return sorted(which, key=lambda i: (mean[i], i))[:count]


def _is_rung(n: int, eta: int) -> bool:
    while n % eta == 0:
        n //= eta
    return n == 1


def student(probability: float, df: float) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit  # slow to import, and only races need it

    return float(stdtrit(df, probability))
