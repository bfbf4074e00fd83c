"""The numbers of a record at the precision of its logs: 8 decimals of a score, whole milliseconds, whole bytes.

Everything in ``submission.json`` and ``README.md`` is a pure function of :class:`Facts`. A record makes them from its
reports, ``verify`` from its logs; because both round alike, the two must agree to the last digit.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.audit.rules import AuditRule
from model.job import ARTIFACT
from model.stages import Stage
from service.inference import Density
from service.record.against import Against, Beaten, Comparison, against_from_json, compared, tokenizer_of
from service.record.changes import Change
from service.record.logs import LABELS, SeedLog
from service.record.tracks import NON_RECORD as NON_RECORD
from service.spec import Credit
from service.stats import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What isn't measured: who, what, where, and the caps."""

    name: str
    author: str
    github_id: str
    date: str
    blurb: str
    track: str
    non_record: list[str]
    recipe: str
    title: str
    """How the config differs from the recipe."""
    baseline: str
    """The recipe that its changes are listed from."""
    spec_digest: str
    headline: str
    audit_key: str
    """The headline's audit in the stage store."""
    audit_digest: str
    """Of what an audit of the headline has to be about."""
    artifact_cap_bytes: int
    train_cap_s: float
    eval_cap_s: float
    """Cap of all scores of a seed together."""
    ranks: int
    threads: int
    device: str
    corpus: str
    corpus_digest: str
    git_sha: str
    git_dirty: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreFacts:
    """One score of one seed."""

    val_loss: float
    """Nats per token, 8 decimals."""
    val_bpb: float
    eval_ms: int
    tokens: int
    """How many were scored."""
    text_bytes: int
    """Of the text that they stand for."""
    scored_twice: int
    """Tokens that were scored more than once."""
    exposed: int
    """Tokens that were scored by something that had learned from them or from later ones."""
    off_one: float | None
    """Largest deviation of a distribution's sum from 1; None in a record of before it was measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedFacts:
    """One seed."""

    seed: int
    steps: int
    train_ms: int
    model_bytes: int
    scores: Mapping[str, ScoreFacts]
    """Stage -> score, in running order."""
    keys: Mapping[str, str]
    """Stage -> its key in the stage store."""
    artifact_sha256: str
    hardware: str
    torch: str

    @property
    def step_avg_ms(self) -> float:
        return round(self.train_ms / self.steps, 2)

    @property
    def train_s(self) -> float:
        return self.train_ms / 1000

    @property
    def eval_s(self) -> float:
        """All scores together."""
        return sum(score.eval_ms for score in self.scores.values()) / 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedFacts:
    """One config of the sweep that chose this one."""

    title: str
    headline: str
    leaks: bool
    """Whether the headline had learned from tokens that it then scored."""
    bpb: Sample
    unfinished: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All a record claims."""

    about: About
    code_bytes: int
    code_sha256: str
    seeds: tuple[SeedFacts, ...]
    compared: tuple[ComparedFacts, ...]
    audit: tuple[AuditRule, ...]
    """What the audit of the headline found; empty when there is none."""
    changes: tuple[Change, ...]
    """From the baseline recipe."""
    credits: tuple[Credit, ...]
    against: Against

    @property
    def bpb(self) -> Sample:
        """The headline's bits per byte."""
        return self.sample(self.about.headline)

    def sample(self, stage: str) -> Sample:
        """Bits per byte of one scoring stage."""
        return Sample(values={seed.seed: seed.scores[stage].val_bpb for seed in self.seeds})

    @property
    def loss(self) -> Sample:
        """The headline's nats per token."""
        return Sample(values={seed.seed: seed.scores[self.about.headline].val_loss for seed in self.seeds})

    @property
    def density(self) -> Density | None:
        """Of the tokenizer, from the headline in both units; None where one of them is 0."""
        try:
            return Density.measured(tokenizer_of(self.about.corpus), self.loss.mean, self.bpb.mean)
        except (ValueError, ArithmeticError):
            return None

    @property
    def comparison(self) -> Comparison | None:
        """Beside the record that it has to beat; None when it is held against none."""
        return self._beside(self.against.record)

    @property
    def comparison_alike(self) -> Comparison | None:
        """Beside the best on the same tokenizer, where that is another."""
        return self._beside(self.against.alike)

    def _beside(self, theirs: Beaten | None) -> Comparison | None:
        density = self.density
        return compared(theirs, self.against.rules, self.bpb, density) if theirs and density else None

    @property
    def base(self) -> ComparedFacts | None:
        """The config that the others were compared with; None when nothing was compared."""
        if len(self.compared) < 2:
            return None
        return next((row for row in self.compared if row.title == "base"), self.compared[0])

    @property
    def own_row(self) -> ComparedFacts | None:
        """This record's config among those that were compared."""
        own = (self.about.title, self.about.headline)
        return next((row for row in self.compared if (row.title, row.headline) == own), None)

    def artifact_bytes(self, seed: SeedFacts) -> int:
        """Code and model together: what the cap counts."""
        return self.code_bytes + seed.model_bytes

    @property
    def stages(self) -> tuple[str, ...]:
        """The scoring stages that every seed has, in running order."""
        return tuple(stage for stage in LABELS if all(stage in seed.scores for seed in self.seeds))


def millis(seconds: float) -> int:
    """Whole milliseconds, rounded as the log's lines are."""
    return int(f"{1000 * seconds:.0f}")


def facts_of(
    reports: Mapping[str, Any],
    code: bytes,
    logs: Mapping[int, SeedLog] | None = None,
    audit: tuple[AuditRule, ...] = (),
) -> Facts:
    """The facts of a record from its ``reports.json``; with ``logs``, every number that a log has is taken from there.
    ``audit`` are the rules of its ``audit.json``.

    Raises:
        ValueError: the reports or a log lack something, or it is of the wrong kind.
    """
    try:
        known = about_from_json(reports["about"])
        seeds = {int(seed): stages for seed, stages in reports["seeds"].items()}
        facts = Facts(
            about=known,
            code_bytes=len(code),
            code_sha256=hashlib.sha256(code).hexdigest(),
            seeds=tuple(_seed(seed, seeds[seed], logs[seed] if logs else None) for seed in sorted(seeds)),
            compared=tuple(_compared(row) for row in reports["compared"]),
            audit=audit,
            changes=tuple(Change(**row) for row in reports["changes"]),
            credits=tuple(Credit(**row) for row in reports["credits"]),
            against=against_from_json(reports["against"]),
        )
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not facts.seeds or known.headline not in facts.stages:
        raise ValueError(f"the headline {known.headline!r} is not a score that every seed has")
    return facts


def about_from_json(data: Mapping[str, Any]) -> About:
    """The unmeasured facts from their JSON form.

    Raises:
        ValueError: a field is of the wrong kind.
        TypeError: a field is missing or unknown.
    """
    about = About(**data)
    for name, hint in typing.get_type_hints(About).items():
        kind = typing.get_origin(hint) or hint
        if type(getattr(about, name)) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}, got {getattr(about, name)!r}")
    return about


def _seed(seed: int, stages: Mapping[str, Any], log: SeedLog | None) -> SeedFacts:
    train, pack = stages[Stage.TRAIN]["metrics"], stages[Stage.PACK]["metrics"]
    steps, train_ms, model_bytes = int(train["train_steps"]), millis(train["train_s"]), int(pack["model_bytes"])
    if log:
        steps, train_ms, model_bytes = _there(log.steps), _there(log.train_ms), _there(log.model_bytes)
    scores = [stage for stage in LABELS if stage in stages]
    return SeedFacts(
        seed=seed,
        steps=steps,
        train_ms=train_ms,
        model_bytes=model_bytes,
        scores={str(stage): _score(stage, stages[stage]["metrics"], log) for stage in scores},
        keys={str(stage): str(stages[stage]["key"]) for stage in Stage if stage in stages},
        artifact_sha256=str(stages[Stage.PACK]["outputs"][ARTIFACT]["sha256"]),
        hardware=str(stages[Stage.TRAIN]["facts"]["hardware"]),
        torch=str(stages[Stage.TRAIN]["facts"]["torch"]),
    )


def _score(stage: Stage, metrics: Mapping[str, Any], log: SeedLog | None) -> ScoreFacts:
    val_loss, val_bpb, eval_ms = metrics["val_loss_nats"], metrics["val_bpb"], millis(metrics["eval_s"])
    if log:
        final = log.finals[LABELS[stage]]
        val_loss, val_bpb, eval_ms = float(final.val_loss), float(final.val_bpb), _there(final.eval_ms)
    return ScoreFacts(
        val_loss=round(val_loss, 8),
        val_bpb=round(val_bpb, 8),
        eval_ms=eval_ms,
        tokens=int(metrics["tokens"]),
        text_bytes=int(metrics["text_bytes"]),
        scored_twice=int(metrics["scored_twice"]),
        exposed=int(metrics["exposed"]),
        off_one=float(metrics["off_one"]) if "off_one" in metrics else None,
    )


def _there(number: int | None) -> int:
    if number is None:
        raise ValueError("a line of the log is missing")
    return number


def _compared(row: Mapping[str, Any]) -> ComparedFacts:
    if row["headline"] not in LABELS:
        raise ValueError(f"{row['headline']!r} is not a score")
    return ComparedFacts(
        title=str(row["title"]),
        headline=str(row["headline"]),
        leaks=bool(row["leaks"]),
        bpb=Sample(values=dict(sorted((int(seed), float(value)) for seed, value in row["val_bpb"].items()))),
        unfinished=tuple(int(seed) for seed in row["unfinished"]),
    )
