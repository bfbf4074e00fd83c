"""Proposals of Optuna's TPE, through Ray Tune's wrapper of it. It starts no Ray and keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

# Before any other part of Tune is imported: it sets what Tune reads once.
from service.adapters import ray_tune  # noqa: F401  # isort: skip
from ray.tune.search.optuna import OptunaSearch

from service.space import Range, Space

SETTINGS: dict[str, Any] = {"n_startup_trials": 10, "multivariate": True, "constant_liar": True}
"""Optuna's own by now, written out because other ones would propose other trials: ten by chance at first, axes looked
at together, and what is under way counts as bad, so that a round spreads out."""
METRIC = "val_bpb"


class OptunaSampler:
    """A :class:`service.ports.Sampler`; what it proposes follows from ``space``, ``seed``, ``first`` and what it is
    told, and from nothing else."""

    def __init__(self, space: Space, seed: int, first: Mapping[str, Any] | None = None) -> None:
        self.space = dict(space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = OptunaSearch(
            space={path: _distribution(axis) for path, axis in space.items()},
            metric=METRIC,
            mode="min",
            sampler=optuna.samplers.TPESampler(seed=seed, **SETTINGS),
            points_to_evaluate=[self._encoded(first)] if first else None,
        )
        self._asked = self._told = 0

    def ask(self) -> dict[str, Any]:
        """The next overlay, as the port says."""
        found = self._search.suggest(str(self._asked))
        self._asked += 1
        return {p: axis.fit(found[p]) if isinstance(axis, Range) else axis[found[p]] for p, axis in self.space.items()}

    def tell(self, values: Sequence[float | None]) -> None:
        """As the port says."""
        assert len(values) == self._asked - self._told, f"{self._asked - self._told} are open, got {len(values)} values"
        for value in values:
            result = None if value is None else {METRIC: value}
            self._search.on_trial_complete(str(self._told), result, error=value is None)
            self._told += 1

    def _encoded(self, overlay: Mapping[str, Any]) -> dict[str, Any]:
        return {p: v if isinstance(a := self.space[p], Range) else a.index(v) for p, v in overlay.items()}


def _distribution(axis: Any) -> optuna.distributions.BaseDistribution:
    """Values by their place, so that they may be anything."""
    if not isinstance(axis, Range):
        return optuna.distributions.CategoricalDistribution(range(len(axis)))
    if axis.whole:
        step = 1 if axis.step is None else int(axis.step)
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.last), log=axis.log, step=step)
    return optuna.distributions.FloatDistribution(float(axis.low), float(axis.last), log=axis.log, step=axis.step)
