"""What is run, as frozen values: a recipe's RunSpec, and the SweepSpec that varies it.

The configs inside come from ``model`` but are never imported here: paths, digests and overlays work on any tree of
frozen dataclasses, so that ``service`` needs no torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from model.codec import described, digest
from model.overlay import field_at, overlay, parse_value
from model.stages import Stage
from service.errors import SpecError
from service.overlays import Overlays
from service.racing import Racing


@dataclass(frozen=True, kw_only=True, slots=True)
class GangShape:
    """The processes of one stage, all on one node."""

    ranks: int = 8
    threads: int = 4
    """CPU threads, and CPUs reserved, of each rank."""
    device: Literal["cpu", "cuda"] = "cuda"
    hardware: str = ""
    """Class of the node, e.g. ``H100-SXM``. Part of the key of stages that end by the clock."""

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.threads < 1:
            raise ValueError(f"gang.ranks and gang.threads must be 1 or more, got {self.ranks} and {self.threads}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"gang.device must be 'cpu' or 'cuda', got {self.device!r}")

    @property
    def bundle(self) -> dict[str, float]:
        """Ray resources of one rank."""
        return {"CPU": float(self.threads)} | ({"GPU": 1.0} if self.device == "cuda" else {})


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The hard caps: decimal bytes of code and model together, seconds of training and of evaluation."""

    artifact_bytes: int = 16_000_000
    train_s: float = 600.0
    eval_s: float = 600.0
    """All scoring stages of a seed together; also each one's deadline, with ``slack_s`` added."""
    slack_s: float = 300.0
    """Seconds a gang may take beyond its cap for starting, compiling and writing before it is ended."""
    silence_s: float = 300.0
    """Seconds without a step or a scored batch after which a gang counts as hung; above the time to compile."""

    def __post_init__(self) -> None:
        if min(self.artifact_bytes, self.train_s, self.eval_s, self.slack_s, self.silence_s) <= 0:
            raise ValueError(f"budget: every cap must be above 0, got {self}")


OWN = ("gang", "budget", "corpus")
"""What an overlay changes beside the config."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """Everything that decides a result, except the seed. Equal digests are the same experiment."""

    config: Any
    """A ``model.run.RunConfig``."""
    gang: GangShape = GangShape()
    budget: Budget = Budget()
    corpus: str = "pd_mix_v1"
    name: str = described("")
    track: str = described("10min_16mb")
    """The leaderboard a record of this recipe is for."""
    notes: str = described("")
    """What the recipe reproduces, and what it leaves out."""

    def at(self, changes: Mapping[str, Any]) -> RunSpec:
        """This spec with fields replaced by dotted path: ``gang.*``, ``budget.*``, ``corpus``, else into the config.

        Raises:
            SpecError: an unknown path (the message names what exists) or a value that doesn't fit.
        """
        known = (*(field.name for field in fields(self.config)), *OWN)
        for path in changes:
            if path.split(".")[0] not in known:
                raise SpecError(f"{path!r}: no field {path.split('.')[0]!r}; there is {', '.join(known)}")
        own = {path: value for path, value in changes.items() if path.split(".")[0] in OWN}
        inner = {path: value for path, value in changes.items() if path not in own}
        try:
            changed: RunSpec = overlay(replace(self, config=overlay(self.config, inner)), own)
            return changed
        except ValueError as error:
            raise SpecError(str(error)) from error

    def digest(self) -> str:
        """12 hex digits; names and notes don't count."""
        return digest(self, 12)

    @property
    def scores(self) -> tuple[Stage, ...]:
        """The scoring stages that the config turns on."""
        on = (Stage.SLIDING, Stage.TTT, Stage.SLOT)
        return tuple(stage for stage in on if field_at(self.config, str(stage)) is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSpec:
    """Which overlays of a recipe are tried, and which number judges them."""

    name: str
    recipe: str
    space: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Dotted path -> values; the trials are their product."""
    draw: int = 0
    """Above 0: only so many trials, drawn from the product without repeats; the same ones each time."""
    also: tuple[tuple[Stage, Mapping[str, Any]], ...] = ()
    """Further trials: an overlay, and the scoring stage that judges it."""
    objective: Stage = Stage.SLOT
    """The scoring stage whose ``val_bpb``, averaged over the seeds, is made small."""
    seeds: tuple[int, ...] = (42, 1337, 2024)
    racing: Racing | None = None
    """How the trials race over the seeds; None: every trial gets every seed."""

    def with_axes(self, words: Sequence[str]) -> SweepSpec:
        """This sweep with axes replaced or added, each ``PATH=V1,V2,...``.

        Raises:
            SpecError: a word without ``=`` or without values, or a value given twice.
        """
        space = dict(self.space)
        for word in words:
            path, equals, text = word.partition("=")
            values = tuple(parse_value(part) for part in text.split(",") if part)
            if not equals or not path or not values:
                raise SpecError(f"--space {word!r}: write it as PATH=V1,V2,..., e.g. score.slot.lr=0.004,0.012")
            if len(set(values)) < len(values):
                raise SpecError(f"--space {word!r}: a value is given twice")
            space[path] = values
        return replace(self, space=space)

    def trials(self) -> list[tuple[Stage, dict[str, Any]]]:
        """Every trial as the stage that judges it and its overlay: the product in order, then the further ones."""
        return [(self.objective, changes) for changes in self.grid()] + [(stage, {**part}) for stage, part in self.also]

    def grid(self) -> list[dict[str, Any]]:
        """The overlays of the product, or the drawn ones among them, in order; none without axes."""
        points = math.prod(len(values) for values in self.space.values()) if self.space else 0
        # Drawn by number, so that a huge product is never written out; seeded by the axes and nothing else.
        drawn = (
            sorted(random.Random(repr(self.space)).sample(range(points), self.draw)) if 0 < self.draw < points else ()
        )
        return [self._point(number) for number in drawn or range(points)]

    def _point(self, number: int) -> dict[str, Any]:
        """One overlay of the product, by its place in it; the last axis runs fastest."""
        point = {}
        for path, values in reversed(list(self.space.items())):
            number, place = divmod(number, len(values))
            point[path] = values[place]
        return dict(reversed(list(point.items())))

    def check(self, base: RunSpec) -> None:
        """Refuse a space that doesn't fit ``base`` before anything runs.

        Raises:
            SpecError: an unknown path, an empty axis, a value that doesn't fit, an objective that is off.
        """
        self.specs(base)

    def specs(self, base: RunSpec) -> list[tuple[Stage, dict[str, Any], RunSpec]]:
        """Every trial as the stage that judges it, its overlay, and ``base`` with that.

        Raises:
            SpecError: as :meth:`check`.
        """
        if self.draw < 0:
            raise SpecError(f"sweep {self.name}: draw must be 0 or more, got {self.draw}")
        for path, values in self.space.items():
            if not values:
                raise SpecError(f"sweep {self.name}: {path} has no values")
        trials = self.trials()
        if not trials:
            raise SpecError(f"sweep {self.name} has no trials: give it an axis with --space PATH=V1,V2,...")
        for stage in dict.fromkeys((Stage.SLIDING, *(stage for stage, _ in trials))):
            if stage not in base.scores:
                raise SpecError(f"sweep {self.name}: {stage} is off in recipe {self.recipe}")
        overlays = Overlays(base)
        return [(stage, changes, overlays.at(changes)) for stage, changes in trials]


def parse_changes(words: Sequence[str]) -> dict[str, Any]:
    """``["score.slot.lr=0.012"]`` as an overlay.

    Raises:
        SpecError: a word without ``=``, or a path given twice.
    """
    changes: dict[str, Any] = {}
    for word in words:
        path, equals, text = word.partition("=")
        if not equals or not path:
            raise SpecError(f"--set {word!r}: write it as PATH=VALUE, e.g. score.slot.lr=0.012")
        if path in changes:
            raise SpecError(f"--set {path} is given twice: {changes[path]!r} and {text!r}")
        changes[path] = parse_value(text)
    return changes


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"42,1337,2024"`` as seeds.

    Raises:
        SpecError: not whole numbers of 0 or more, none at all, or one twice.
    """
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise SpecError(f"--seeds {text!r}: write whole numbers with commas, e.g. 42,1337,2024") from None
    if any(seed < 0 or seed >= 2**63 for seed in seeds):
        raise SpecError(f"--seeds {text!r}: a seed is from 0 to 2^63 - 1")
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise SpecError(f"--seeds {text!r}: {twice[0]} is given twice, and a repeat is no new evidence")
    return seeds


def slug(changes: Mapping[str, Any]) -> str:
    """A short name of an overlay: ``lr=0.008 steps=8``; ``base`` when it is empty."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={_brief(value)}" for path, value in changes.items()) or "base"


def _brief(value: Any) -> str:
    """A value in a title; of a group of fields those that aren't at their default."""
    if not is_dataclass(value) or isinstance(value, type):
        return str(value)
    own = [(one.name, getattr(value, one.name)) for one in fields(value) if getattr(value, one.name) != one.default]
    return f"{type(value).__name__}({', '.join(f'{name}={_brief(part)}' for name, part in own)})"
