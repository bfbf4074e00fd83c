"""Recomputes every number of a record folder from its logs and files, and names what doesn't match.

``submission.json`` and ``README.md`` are never trusted: they are what is checked. ``reports.json`` gives what no log
holds (names, caps, stage keys); where it repeats a number of a log, it is checked, too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.job import ARTIFACT
from model.stages import Stage
from service.record.against import against_json
from service.record.checks import broken
from service.record.compare import json_differences, line_differences, read_object, read_text
from service.record.evidence import CODE, README, REPORTS, SUBMISSION, Evidence, attempt, log_name, read_folder
from service.record.facts import Facts, SeedFacts, facts_of
from service.record.logs import SeedLog
from service.record.readme import readme_of
from service.record.schema import schema_differences
from service.record.submission import MEASURED, submission_of

UNIT_BPB = 1e-8
"""The last digit of an ``_exact`` line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedVerdict:
    """One seed, from its log and the code file."""

    val_bpb: float
    artifact_bytes: int
    train_s: float
    eval_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CapVerdict:
    """The worst seed against a cap."""

    cap: float
    worst: float

    @property
    def kept(self) -> bool:
        return self.worst <= self.cap


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the folder really says, and every line that says otherwise."""

    seeds: Mapping[int, SeedVerdict]
    mean_bpb: float | None
    """None unless every seed has a whole log: a mean over survivors is not a mean."""
    sd_bpb: float | None
    """Of the sample (n - 1)."""
    mismatches: tuple[str, ...]
    caps: Mapping[str, CapVerdict]

    @property
    def ok(self) -> bool:
        return not self.mismatches

    def to_json(self) -> dict[str, Any]:
        """For a machine."""
        names = ("val_bpb", "artifact_bytes", "train_s", "eval_s")
        return {
            "ok": self.ok,
            "seeds": {str(seed): {name: getattr(one, name) for name in names} for seed, one in self.seeds.items()},
            "mean_bpb": self.mean_bpb,
            "sd_bpb": self.sd_bpb,
            "mismatches": list(self.mismatches),
            "caps": {name: {"cap": c.cap, "worst": c.worst, "kept": c.kept} for name, c in self.caps.items()},
        }


def verify(
    folder: Path,
    *,
    artifact_cap: int | None = None,
    train_cap_s: float | None = None,
    eval_cap_s: float | None = None,
) -> Verdict:
    """Check a record folder. Caps that aren't given are those in ``reports.json``, else the field's.

    Never raises for what is in the folder: what is missing, damaged or of another shape is a mismatch.
    """
    evidence = read_folder(folder)
    facts = evidence.facts
    wrong = [*evidence.wrong]
    if evidence.reports:
        wrong += _file_differences(folder, evidence.reports)
        wrong += _against_differences(evidence.reports)
    if facts:
        wrong += (line for seed in facts.seeds for line in _log_differences(evidence.logs[seed.seed], seed, facts))
        wrong += _report_differences(evidence, facts)
    if facts and evidence.complete:
        wrong += _claim_differences(folder, facts, all_claims=evidence.reports is not None)
    else:
        wrong.append(f"{SUBMISSION}, {README}: not compared, because not every seed has a whole log")
    given = {"artifact_bytes": artifact_cap, "train_s": train_cap_s, "eval_s": eval_cap_s}
    caps = _caps(facts, given) if facts else {}
    for name, cap in caps.items():
        if not cap.kept and given[name] is not None:
            wrong.append(f"{name}: {cap.worst:,} in the worst seed is over the given cap, {cap.cap:,}")
    return Verdict(
        seeds={seed.seed: _seed_verdict(facts, seed) for seed in facts.seeds} if facts else {},
        mean_bpb=facts.bpb.mean if facts and evidence.complete else None,
        sd_bpb=facts.bpb.sd if facts and evidence.complete else None,
        mismatches=tuple(wrong),
        caps=caps,
    )


def _seed_verdict(facts: Facts, seed: SeedFacts) -> SeedVerdict:
    return SeedVerdict(
        val_bpb=seed.scores[facts.about.headline].val_bpb,
        artifact_bytes=facts.artifact_bytes(seed),
        train_s=seed.train_s,
        eval_s=seed.eval_s,
    )


def _caps(facts: Facts, given: Mapping[str, float | None]) -> dict[str, CapVerdict]:
    about = facts.about
    worst = {
        "artifact_bytes": (about.artifact_cap_bytes, max(facts.artifact_bytes(seed) for seed in facts.seeds)),
        "train_s": (about.train_cap_s, max(seed.train_s for seed in facts.seeds)),
        "eval_s": (about.eval_cap_s, max(seed.eval_s for seed in facts.seeds)),
    }
    chosen = {name: cap if (other := given[name]) is None else other for name, (cap, _) in worst.items()}
    return {name: CapVerdict(cap=chosen[name], worst=value) for name, (_, value) in worst.items()}


def _claim_differences(folder: Path, facts: Facts, *, all_claims: bool) -> list[str]:
    """``submission.json`` and ``README.md``; only what is measured when names and caps are unknown."""
    expected = submission_of(facts)
    wrong: list[str] = []
    found = attempt(wrong, SUBMISSION, lambda: read_object(folder / SUBMISSION, printed=True))
    if found is not None:
        wanted = expected if all_claims else {name: expected[name] for name in MEASURED}
        wrong += json_differences(found, wanted, SUBMISSION)
        wrong += schema_differences(found, SUBMISSION) if all_claims else ()
    text = attempt(wrong, README, lambda: read_text(folder / README))
    if text is not None and all_claims:
        wrong += line_differences(text, readme_of(facts), README)
    if all_claims:
        rules, admitted = broken(facts), facts.about.non_record
        wrong += (f"broken and not admitted: {rule}" for rule in rules if rule not in admitted)
        wrong += (f"admitted and not broken: {rule}" for rule in admitted if rule not in rules)
    return wrong


def _log_differences(log: SeedLog, seed: SeedFacts, facts: Facts) -> Iterator[str]:
    """A log against itself and against the code file."""
    total = facts.artifact_bytes(seed)
    lines = (
        ("seed", log.seed, seed.seed, "its name"),
        ("Code size", log.code_bytes, facts.code_bytes, CODE),
        ("Total submission size", log.total_bytes, total, f"{CODE} and the Serialized model line"),
    )
    for what, says, expected, source in lines:
        if says is None:
            yield f"{log_name(seed.seed)}: no {what} line"
        elif says != expected:
            yield f"{log_name(seed.seed)}: {what} is {says}, but {expected} by {source}"


def _report_differences(evidence: Evidence, facts: Facts) -> Iterator[str]:
    """The numbers in ``reports.json`` that a log, or the rest of a report, also gives."""
    reports = evidence.reports
    if not reports:
        return
    claimed = {seed.seed: seed for seed in facts_of(reports, b"").seeds}
    for seed in facts.seeds:
        place, source = f"{REPORTS}: seeds.{seed.seed}", log_name(seed.seed)
        stages, claim = reports["seeds"][str(seed.seed)], claimed[seed.seed]
        pairs = [(f"{Stage.TRAIN} {name}", getattr(claim, name), getattr(seed, name)) for name in ("steps", "train_ms")]
        pairs += [(f"{Stage.PACK} model_bytes", claim.model_bytes, seed.model_bytes)]
        artifact = stages[Stage.PACK]["outputs"][ARTIFACT].get("size_bytes")
        pairs += [(f"{Stage.PACK} size_bytes of {ARTIFACT}", artifact, seed.model_bytes)]
        parameters = stages[Stage.TRAIN]["metrics"].get("parameters")
        pairs += [(f"{Stage.TRAIN} parameters", parameters, evidence.logs[seed.seed].params)]
        for stage, score in seed.scores.items():
            names = ("val_loss", "val_bpb", "eval_ms")
            pairs += [(f"{stage} {name}", getattr(claim.scores[stage], name), getattr(score, name)) for name in names]
            yield from _density_differences(stages[stage]["metrics"], f"{place} {stage}")
        yield from (f"{place} {what} is {says}, {source} says {log}" for what, says, log in pairs if says != log)
    for row in facts.compared if evidence.complete else ():
        # A race's winner is recorded over fresh seeds; the row of those that chose it has no log here.
        fresh = row.bpb.values and not row.bpb.values.keys() & facts.bpb.values.keys()
        own = (row.title, row.headline) == (facts.about.title, facts.about.headline)
        if own and not fresh and row.bpb != facts.bpb:
            yield f"{REPORTS}: compared {row.title!r} is {dict(row.bpb.values)}, the logs say {dict(facts.bpb.values)}"


def _against_differences(reports: Mapping[str, Any]) -> Iterator[str]:
    """Nobody chooses what to beat: it is the best of the day, with the numbers that are known of it."""
    about = reports["about"]
    expected = against_json(about["track"], about["corpus"], about["date"])
    for name, value in expected.items():
        if reports["against"].get(name) != value:
            yield f"{REPORTS}: against.{name} is {reports['against'].get(name)}, the leaderboard's data say {value}"


def _density_differences(metrics: Mapping[str, Any], place: str) -> Iterator[str]:
    """Bits per byte must follow from the loss, the tokens and the bytes of the text."""
    try:
        bpb = metrics["val_loss_nats"] * metrics["tokens"] / math.log(2) / metrics["text_bytes"]
    except (KeyError, TypeError, ArithmeticError) as error:
        yield f"{place}: val_bpb can't be recomputed ({type(error).__name__}: {error})"
        return
    if not abs(bpb - metrics["val_bpb"]) <= UNIT_BPB:
        yield f"{place} val_bpb is {metrics['val_bpb']}, its loss, tokens and bytes make {bpb}"


def _file_differences(folder: Path, reports: Mapping[str, Any]) -> Iterator[str]:
    """Code, logs and figure are the ones the folder was assembled with."""
    for name, ref in reports["files"].items():
        path = folder / Path(name).name
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "of no file"
        except (OSError, ValueError) as error:
            found = f"unknown ({error})"
        listed = ref.get("sha256") if isinstance(ref, dict) else None
        if found != listed:
            yield f"{name}: sha256 is {found}, {REPORTS} says {listed}"
