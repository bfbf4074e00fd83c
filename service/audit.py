"""Audits: which computation answers whether a scorer keeps the rules, and what it found, read without trust."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.audit.rules import AUDIT_FILE, RULES, AuditRule, judged
from model.codec import TAG, digest, encode
from model.data.shards import Corpus
from model.overlay import field_at
from model.stages import STAGES, Stage
from service.errors import SpecError
from service.source import modules_of, source_digest
from service.spec import GangShape, RunSpec
from service.stages import PlannedStage, stage_key

GANG = GangShape(ranks=1, threads=1, device="cpu")
"""One thread repeats a pass bit for bit, and a small network gains nothing from more."""
DEADLINE_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """A scorer from outside the project, found and not imported."""

    name: str
    """``package.module:Name``."""
    folder: Path
    """Where ``package`` lies."""
    source: str
    """Digest of its file, or of every .py file of its package."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What an audit found."""

    config_digest: str
    """Of what was audited: the network, the windows, the scorer, and what adapts before it."""
    rules: tuple[AuditRule, ...]

    @property
    def clean(self) -> bool:
        return all(rule.kept for rule in self.rules)


def scorer_named(spec: RunSpec, name: str, folders: Sequence[str] | None = None) -> Stage | Outside:
    """The scorer that ``--scorer`` means: one that the recipe turns on, or ``package.module:Name`` from outside.

    Raises:
        SpecError: it is off, or there is none of that name.
    """
    if ":" in name:
        return find_outside(name, [str(Path.cwd()), *sys.path] if folders is None else folders)
    scores = [str(stage).removeprefix("score.") for stage in Stage if stage.startswith("score.")]
    if name not in scores:
        raise SpecError(f"no scorer {name!r}; there is {', '.join(scores)}, or package.module:Name")
    stage = Stage(f"score.{name}")
    if stage not in spec.scores:
        raise SpecError(f"{stage} is off in recipe {spec.name}")
    return stage


def find_outside(name: str, folders: Sequence[str]) -> Outside:
    """The module of ``package.module:Name`` below the first of ``folders`` that has it; nothing is imported.

    Raises:
        SpecError: no folder has it, its name is one of Python's own, or isn't of that form.
    """
    module, _, inside = name.partition(":")
    parts = module.split(".")
    if not inside.isidentifier() or not all(part.isidentifier() for part in parts):
        raise SpecError(f"scorer {name!r}: write it as package.module:Name")
    if parts[0] in sys.stdlib_module_names:
        raise SpecError(f"scorer {name!r}: {parts[0]} is a module of Python's own; give yours another name")
    for folder in map(Path, folders):
        stem = folder.joinpath(*parts)
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                package = folder / parts[0]
                files = sorted(package.rglob("*.py")) if package.is_dir() else [path]
                total = hashlib.sha256()
                for file in files:
                    total.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
                return Outside(name=name, folder=folder.resolve(), source=total.hexdigest()[:16])
    raise SpecError(f"scorer {name!r}: no module {module} in the working folder or on Python's path")


def plan_audit(spec: RunSpec, corpus: Corpus, scorer: Stage | Outside) -> PlannedStage:
    """The audit of one scorer of ``spec``; whatever else the config holds isn't part of its key."""
    definition = STAGES[Stage.AUDIT]
    slices: dict[str, Any] = {path: field_at(spec.config, path) for path in definition.reads}
    prequant = spec.config.adapt.prequant
    if prequant is not None:
        slices |= {path: field_at(spec.config, path) for path in ("adapt.prequant", "train.seq_len")}
    if isinstance(scorer, Stage):
        slices[str(scorer)] = field_at(spec.config, str(scorer))
    parts = {path: digest(value) for path, value in slices.items()}
    if isinstance(scorer, Outside):
        parts |= {"scorer": scorer.name, "scorer's source": scorer.source}
    modules = tuple(sorted({definition.entry.partition(":")[0], *modules_of(slices)}))
    parts |= {"source": source_digest(modules)[:16], "corpus": corpus.digest}
    return PlannedStage(
        stage=Stage.AUDIT,
        seed=0,
        key=stage_key(Stage.AUDIT, parts),
        parts=parts,
        inputs={},
        config={TAG: "model.audit.stage:AuditConfig", **encode(_config_fields(spec, scorer))},
        gang=GANG,
        together="",
        corpus=str(corpus.folder),
        corpus_digest=corpus.digest,
        modules=modules,
        deadline_s=DEADLINE_S,
    )


def audit_digest(spec: RunSpec, scorer: Stage) -> str:
    """The ``config_digest`` that an audit of this scorer has."""
    return digest({TAG: "AuditConfig", **_config_fields(spec, scorer)}, 12)


def _config_fields(spec: RunSpec, scorer: Stage | Outside) -> dict[str, Any]:
    """The fields of a ``model.audit.stage.AuditConfig``; the class itself needs torch."""
    config = spec.config
    adapted = config.adapt.prequant is not None
    if isinstance(scorer, Outside):
        named = {TAG: "model.audit.outside:OutsideScorer", "name": scorer.name, "folder": str(scorer.folder)}
    else:
        named = field_at(config, str(scorer))
    return {
        "net": config.net,
        "windows": config.score.windows,
        "scorer": named,
        "prequant": config.adapt.prequant,
        "train_seq_len": config.train.seq_len if adapted else 0,
    }


def read_audit(folder: Path) -> Audit:
    """The audit in a finished stage's folder.

    Raises:
        ValueError: it is missing or not one.
    """
    try:
        return audit_of(json.loads((folder / AUDIT_FILE).read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{folder / AUDIT_FILE}: {error.strerror}") from error


def audit_of(data: Mapping[str, Any]) -> Audit:
    """The audit in ``audit.json``; every verdict is given anew from its evidence.

    Raises:
        ValueError: evidence is missing or of the wrong kind.
    """
    try:
        evidence = {str(row["rule"]): dict(row["evidence"]) for row in data["rules"]}
        if len(data["rules"]) != len(RULES):
            raise ValueError(f"{len(data['rules'])} rules, but there are {', '.join(RULES)}")
        for name, numbers in evidence.items():
            if not all(type(number) in (int, float) for number in numbers.values()):
                raise ValueError(f"the evidence for {name} isn't all numbers")
        return Audit(config_digest=str(data["config_digest"]), rules=judged(evidence))
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"not an audit ({type(error).__name__}: {error})") from error


def verdicts(audit: Audit) -> dict[str, Any]:
    """What ``audit.json`` must say for its evidence: ``clean``, and by rule whether it is kept and why."""
    return {"clean": audit.clean} | {rule.rule: {"kept": rule.kept, "because": rule.because} for rule in audit.rules}


def rule_json(rule: AuditRule) -> dict[str, Any]:
    """A rule for programs."""
    return {"rule": rule.rule, "kept": rule.kept, "evidence": dict(rule.evidence), "because": rule.because}
