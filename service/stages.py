"""Stage keys and plans: which computations a seed of a spec needs, each named by everything that decides its result."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from operator import attrgetter
from typing import Any

from model.data.shards import Corpus
from model.overlay import field_at
from model.stages import STAGES, Stage
from service.memory import Memory
from service.source import module_digests, source_digest
from service.spec import GangShape, RunSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStage:
    """One computation. Its key decides everything; the rest is what a gang needs to do it."""

    stage: Stage
    seed: int
    key: str
    parts: Mapping[str, str]
    """What the key is made of, part by part, to say why two keys differ."""
    inputs: Mapping[str, str]
    """Stage -> key of the stage it builds on."""
    config: Any
    """The encoded run config, for job.json."""
    gang: GangShape
    corpus: str
    """Folder of the prepared corpus."""
    corpus_digest: str
    modules: tuple[str, ...]
    """Where the source of this stage begins; a node whose source differs refuses to run it."""
    deadline_s: float
    """When the gang is ended: the cap of its clock and the slack."""
    cap_s: float = 0.0
    """The cap of its clock alone."""
    silence_s: float = 300.0
    """Without a step for so long, its gang counts as hung."""
    together: str = ""
    """Stages that share this may run in one gang, at once; empty: only alone."""
    stands_for: str = ""
    """The key it would have, when it is another, finished stage that is knowingly used in its place."""

    def value(self, path: str) -> Any:
        """The encoded slice of the config at ``path``; None where there is none, as in an audit's."""
        found = self.config
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def plan_seed(
    spec: RunSpec, seed: int, corpus: Corpus, scores: tuple[Stage, ...] | None = None
) -> tuple[PlannedStage, ...]:
    """The stages of one seed in running order: train, ``adapt.prequant`` where the config turns it on, pack, and
    ``scores`` (by default all that the config turns on).

    The key of a stage digests: its name, the slices of the config it reads, the keys it builds on, the seed where it
    draws numbers, the corpus where it reads one, the gang's shape (and hardware class where a clock ends the work),
    and the source it can reach. Names and notes never count.
    """
    return Planner(corpus).seeds(spec, (seed,), scores)[seed]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Outline:
    """What a stage of a spec is for every seed."""

    stage: Stage
    parts: Mapping[str, str]
    """Without inputs and seed."""
    modules: tuple[str, ...]
    together: str
    cap_s: float


class Planner:
    """:func:`plan_seed` for many specs over one corpus: what they share is worked out once.

    ``reuse`` names finished stages that knowingly take the place of planned ones, by stage and seed; what follows
    builds on them, and so has keys of its own.
    """

    def __init__(self, corpus: Corpus, reuse: Mapping[tuple[Stage, int], str] | None = None) -> None:
        self.corpus, self.reuse = corpus, dict(reuse or {})
        self.replaced: dict[tuple[Stage, int], set[str]] = {at: set() for at in self.reuse}
        """The keys that each reused stage stands for."""
        self.memory = Memory()
        self._outlines: dict[tuple[Any, ...], _Outline] = {}
        self._shared: dict[tuple[Any, ...], PlannedStage] = {}
        self._sources: dict[tuple[Any, ...], tuple[tuple[str, ...], str]] = {}

    def seeds(
        self, spec: RunSpec, seeds: Sequence[int], scores: tuple[Stage, ...] | None = None
    ) -> dict[int, tuple[PlannedStage, ...]]:
        """The stages of each seed, as :func:`plan_seed` says."""
        adapted = () if spec.config.adapt.prequant is None else (Stage.PREQUANT,)
        stages = (Stage.TRAIN, *adapted, Stage.PACK, *(spec.scores if scores is None else scores))
        outlines = [self._outline(spec, stage) for stage in stages]
        return {seed: self._chain(spec, seed, outlines) for seed in seeds}

    def _chain(self, spec: RunSpec, seed: int, outlines: Sequence[_Outline]) -> tuple[PlannedStage, ...]:
        planned: dict[Stage, PlannedStage] = {}
        for outline in outlines:
            before = next((planned[other] for other in STAGES[outline.stage].after if other in planned), None)
            shared = (id(outline), seed, before and before.key)
            if shared not in self._shared:
                self._shared[shared] = self._planned(spec, outline, seed, before)
            planned[outline.stage] = self._shared[shared]
        return tuple(planned.values())

    def _planned(self, spec: RunSpec, outline: _Outline, seed: int, before: PlannedStage | None) -> PlannedStage:
        stage = outline.stage
        inputs = {str(before.stage): before.key} if before else {}
        parts = {**outline.parts, **{f"input {name}": key for name, key in inputs.items()}}
        if STAGES[stage].seeded:
            parts["seed"] = str(seed)
        own = stage_key(stage, parts)
        key = self.reuse.get((stage, seed), own)
        if (stage, seed) in self.reuse:
            self.replaced[stage, seed].add(own)
        return PlannedStage(
            stage=stage,
            seed=seed,
            key=key,
            stands_for="" if key == own else own,
            parts=parts,
            inputs=inputs,
            config=self.memory.encoded(spec.config),
            gang=spec.gang,
            together=outline.together and " ".join((outline.together, *inputs.values())),
            corpus=str(self.corpus.folder),
            corpus_digest=self.corpus.digest,
            modules=outline.modules,
            deadline_s=outline.cap_s + spec.budget.slack_s,
            cap_s=outline.cap_s,
            silence_s=spec.budget.silence_s,
        )

    def _outline(self, spec: RunSpec, stage: Stage) -> _Outline:
        """Found again for every spec that has the same slices, gang and caps."""
        values = [_at(spec.config, path) for path in STAGES[stage].reads]
        by = (stage, *map(self.memory.token, (spec.gang, spec.budget, *values)))
        if by not in self._outlines:
            self._outlines[by] = self._draw(spec, stage, dict(zip(STAGES[stage].reads, values, strict=True)))
        return self._outlines[by]

    def _draw(self, spec: RunSpec, stage: Stage, slices: Mapping[str, Any]) -> _Outline:
        definition = STAGES[stage]
        forms = {path: self.memory.form(value) for path, value in slices.items()}
        parts = {path: form.digest() for path, form in forms.items()}
        parts["gang"] = f"{spec.gang.ranks}x{spec.gang.threads} {spec.gang.device}"
        modules, parts["source"] = self._source(definition.entry, [form.modules for form in forms.values()])
        if definition.corpus:
            parts["corpus"] = self.corpus.digest
        if stage is Stage.TRAIN and spec.config.train.minutes:
            parts["hardware"] = spec.gang.hardware or "any"
        return _Outline(
            stage=stage,
            parts=parts,
            modules=modules,
            together=self._together(stage, spec, parts),
            cap_s=_cap_s(stage, spec),
        )

    def _source(self, entry: str, classes: Sequence[frozenset[str]]) -> tuple[tuple[str, ...], str]:
        """Where a stage's source begins, and the digest of all that it reaches."""
        by = (entry, *classes)
        if by not in self._sources:
            modules = tuple(sorted({entry.partition(":")[0]}.union(*classes)))
            self._sources[by] = modules, source_digest(modules)[:16]
        return self._sources[by]

    def _together(self, stage: Stage, spec: RunSpec, parts: Mapping[str, str]) -> str:
        """All that must be equal but the input: everything of the key but the last slice, and of that what is
        ``alike``."""
        definition = STAGES[stage]
        if not definition.together:
            return ""
        shared = [f"{name} {part}" for name, part in parts.items() if name != definition.reads[-1]]
        return " ".join([*shared, *(self.memory.form(_at(spec.config, path)).canonical for path in definition.alike)])


_getter = functools.cache(attrgetter)


def _at(config: Any, path: str) -> Any:
    try:
        return _getter(path)(config)
    except AttributeError:
        return field_at(config, path)  # which says what there is


def _cap_s(stage: Stage, spec: RunSpec) -> float:
    # A run bounded by steps has no clock of its own; the cap still ends one that hangs.
    return max(spec.budget.train_s, 60 * spec.config.train.minutes) if stage is Stage.TRAIN else spec.budget.eval_s


def made_of(planned: PlannedStage) -> dict[str, Any]:
    """What the key is made of, for people and plans: its parts, the values that they digest, the source by module."""
    return {
        "parts": dict(planned.parts),
        "values": {path: planned.value(path) for path in STAGES[planned.stage].reads if path in planned.parts},
        "sources": module_digests(planned.modules),
    }


def key_prefix(stage: Stage) -> str:
    """How the keys of a kind of stage begin."""
    return f"{stage.replace('.', '-')}-"


def stage_key(stage: Stage, parts: Mapping[str, str]) -> str:
    """The stage's name and a digest of everything in ``parts``."""
    # What json.dumps([stage, sorted(parts.items())]) gives, several times as fast.
    pairs = [f"[{quoted(name)}, {quoted(part)}]" for name, part in sorted(parts.items())]
    text = f"[{quoted(stage)}, [{', '.join(pairs)}]]"
    return f"{key_prefix(stage)}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
