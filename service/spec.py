"""What is run, as frozen values: a recipe's RunSpec, and the SweepSpec that varies it.

The configs inside come from ``model`` but are never imported here: paths, digests and overlays work on any tree of
frozen dataclasses, so that ``service`` needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from model.codec import described, digest
from model.overlay import field_at, overlay, parse_value
from model.stages import Stage
from service.errors import SpecError
from service.overlays import Overlays
from service.racing import Racing
from service.space import Range, Search, Space, corners, parse_axis, points


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
class Credit:
    """Whose work a recipe builds on."""

    pr: int
    """Pull request of openai/parameter-golf."""
    what: str
    author: str = ""
    """As that repository spells it; empty where it isn't known."""
    when: str = ""
    """Class of a part of the config: it counts where one is turned on. Empty: always."""


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
    baseline: str = described("naive")
    """The recipe that a record lists its differences from."""
    credits: tuple[Credit, ...] = field(default=(), metadata={"described": True})
    """What a record of this recipe owes to whom."""

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
    space: Space = field(default_factory=dict)
    """Dotted path -> values, or a range of them."""
    search: Search = Search()
    """How the trials are taken from ``space``: their product unless it says otherwise."""
    also: tuple[tuple[Stage, Mapping[str, Any]], ...] = ()
    """Further trials: an overlay, and the scoring stage that judges it."""
    objective: Stage = Stage.SLOT
    """The scoring stage whose ``val_bpb``, averaged over the seeds, is made small."""
    seeds: tuple[int, ...] = (42, 1337, 2024)
    racing: Racing | None = None
    """How the trials race over the seeds; None: every trial gets every seed."""

    def with_axes(self, words: Sequence[str]) -> SweepSpec:
        """This sweep with axes replaced or added, each as :func:`service.space.parse_axis` reads it.

        Raises:
            SpecError: as there.
        """
        return replace(self, space={**self.space, **dict(map(parse_axis, words))})

    def with_search(self, how: str | None, trials: int | None) -> SweepSpec:
        """This sweep searched in another way, or with another number of trials; None leaves either.

        Raises:
            SpecError: there is no such way, or the number doesn't go with it.
        """
        if how is None and trials is None:
            return self
        kind: Any = self.search.how if how is None else how
        count = 0 if kind == "grid" and trials is None else self.search.trials if trials is None else trials
        try:
            return replace(self, search=replace(self.search, how=kind, trials=count))
        except SpecError as error:
            words = f"{'' if how is None else f' --search {how}'}{'' if trials is None else f' --trials {trials}'}"
            raise SpecError(f"{words[1:]}: {error}") from error

    def trials(self) -> list[tuple[Stage, dict[str, Any]]]:
        """Every trial that is known before anything has run, as the stage that judges it and its overlay: those of the
        axes in order, then the further ones."""
        return [(self.objective, changes) for changes in self.grid()] + [(stage, {**part}) for stage, part in self.also]

    def grid(self) -> list[dict[str, Any]]:
        """The overlays of the axes that are known before anything has run; see :func:`service.space.points`."""
        return points(self.space, self.search)

    def own_point(self, base: RunSpec) -> dict[str, Any] | None:
        """The values that ``base`` itself has on the axes; None where one of them isn't tried."""
        found = {}
        for path, axis in self.space.items():
            try:
                value = field_at(base if path.split(".")[0] in OWN else base.config, path)
            except ValueError:  # an axis of a part that another axis turns on
                return None
            if not (axis.holds(value) if isinstance(axis, Range) else value in axis):
                return None
            found[path] = value if isinstance(axis, Range) else axis[axis.index(value)]
        return found

    def check(self, base: RunSpec) -> None:
        """Refuse a space that doesn't fit ``base`` before anything runs.

        Raises:
            SpecError: an unknown path, an empty axis, a value that doesn't fit, an objective that is off, a seed twice,
                a range in a grid.
        """
        self.specs(base)

    def specs(self, base: RunSpec) -> list[tuple[Stage, dict[str, Any], RunSpec]]:
        """Every known trial as the stage that judges it, its overlay, and ``base`` with that. Of those that are
        proposed later the ends of the space are checked.

        Raises:
            SpecError: as :meth:`check`.
        """
        for path, values in self.space.items():
            if not values:
                raise SpecError(f"sweep {self.name}: {path} has no values")
        twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        if twice or not self.seeds:
            wrong = f"seed {twice[0]} is given twice" if twice else "it has no seeds"
            raise SpecError(f"sweep {self.name}: {wrong}; a repeat is no new evidence")
        trials = self.trials()
        proposed = self.search.how == "tpe" and bool(self.space)
        if not trials and not proposed:
            raise SpecError(f"sweep {self.name} has no trials: give it an axis with --space PATH=V1,V2,...")
        judges = (Stage.SLIDING, *([self.objective] if proposed else []), *(stage for stage, _ in trials))
        for stage in dict.fromkeys(judges):
            if stage not in base.scores:
                raise SpecError(f"sweep {self.name}: {stage} is off in recipe {self.recipe}")
        overlays = Overlays(base)
        for changes in corners(self.space) if proposed else ():
            overlays.at(changes)
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


def parse_seeds(text: str, option: str = "--seeds") -> tuple[int, ...]:
    """``"42,1337,2024"`` as seeds; ``option`` is what a message calls them.

    Raises:
        SpecError: not whole numbers of 0 or more, none at all, or one twice.
    """
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise SpecError(f"{option} {text!r}: write whole numbers with commas, e.g. 42,1337,2024") from None
    if any(seed < 0 or seed >= 2**63 for seed in seeds):
        raise SpecError(f"{option} {text!r}: a seed is from 0 to 2^63 - 1")
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise SpecError(f"{option} {text!r}: {twice[0]} is given twice, and a repeat is no new evidence")
    return seeds


def slug(changes: Mapping[str, Any]) -> str:
    """A short name of an overlay: ``lr=0.008 steps=8``; ``base`` when it is empty."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={brief(value)}" for path, value in changes.items()) or "base"


def brief(value: Any) -> str:
    """A value in a title or a table; of a group of fields those that aren't at their default."""
    if not is_dataclass(value) or isinstance(value, type):
        return str(value)
    own = [(one.name, getattr(value, one.name)) for one in fields(value) if getattr(value, one.name) != one.default]
    return f"{type(value).__name__}({', '.join(f'{name}={brief(part)}' for name, part in own)})"
