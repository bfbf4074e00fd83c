"""Stage keys and plans: which computations a seed of a spec needs, each named by everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.codec import digest, encode
from model.data.shards import Corpus
from model.overlay import field_at
from model.stages import STAGES, Stage
from service.source import modules_of, source_digest
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
    together: str = ""
    """Stages that share this may run in one gang, at once; empty: only alone."""


def plan_seed(
    spec: RunSpec, seed: int, corpus: Corpus, scores: tuple[Stage, ...] | None = None
) -> tuple[PlannedStage, ...]:
    """The stages of one seed in running order: train, ``adapt.prequant`` where the config turns it on, pack, and
    ``scores`` (by default all that the config turns on).

    The key of a stage digests: its name, the slices of the config it reads, the keys it builds on, the seed where it
    draws numbers, the corpus where it reads one, the gang's shape (and hardware class where a clock ends the work),
    and the source it can reach. Names and notes never count.
    """
    adapted = () if spec.config.adapt.prequant is None else (Stage.PREQUANT,)
    stages = (Stage.TRAIN, *adapted, Stage.PACK, *(spec.scores if scores is None else scores))
    encoded = encode(spec.config)
    planned: dict[Stage, PlannedStage] = {}
    for stage in stages:
        definition = STAGES[stage]
        slices = {path: field_at(spec.config, path) for path in definition.reads}
        before = next((other for other in definition.after if other in planned), None)
        inputs = {str(before): planned[before].key} if before else {}
        parts = {path: digest(value) for path, value in slices.items()}
        parts |= {f"input {name}": key for name, key in inputs.items()}
        parts["gang"] = f"{spec.gang.ranks}x{spec.gang.threads} {spec.gang.device}"
        modules = tuple(sorted({definition.entry.partition(":")[0], *modules_of(slices)}))
        parts["source"] = source_digest(modules)[:16]
        if definition.seeded:
            parts["seed"] = str(seed)
        if definition.corpus:
            parts["corpus"] = corpus.digest
        if stage is Stage.TRAIN and spec.config.train.minutes:
            parts["hardware"] = spec.gang.hardware or "any"
        planned[stage] = PlannedStage(
            stage=stage,
            seed=seed,
            key=stage_key(stage, parts),
            parts=parts,
            inputs=inputs,
            config=encoded,
            gang=spec.gang,
            together=_together(stage, spec, parts),
            corpus=str(corpus.folder),
            corpus_digest=corpus.digest,
            modules=modules,
            deadline_s=_deadline_s(stage, spec),
        )
    return tuple(planned.values())


def _deadline_s(stage: Stage, spec: RunSpec) -> float:
    cap_s = spec.budget.eval_s
    if stage is Stage.TRAIN:
        # A run bounded by steps has no clock of its own; the cap still ends one that hangs.
        cap_s = max(spec.budget.train_s, 60 * spec.config.train.minutes)
    return cap_s + spec.budget.slack_s


def _together(stage: Stage, spec: RunSpec, parts: Mapping[str, str]) -> str:
    """A digest of all that must be equal: everything of the key but the last slice, and of that what is ``alike``."""
    definition = STAGES[stage]
    if not definition.together:
        return ""
    shared = {name: part for name, part in parts.items() if name != definition.reads[-1]}
    shared |= {path: digest(field_at(spec.config, path)) for path in definition.alike}
    return stage_key(stage, shared)


def stage_key(stage: Stage, parts: Mapping[str, str]) -> str:
    """The stage's name and a digest of everything in ``parts``."""
    text = json.dumps([stage, sorted(parts.items())])
    return f"{stage.replace('.', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
