"""``submission.json`` in the shape that most merged records have (openai/parameter-golf #1019, #1493), as typed rows.

``service/data/submission.schema.json`` is its schema, ``docs/submission.md`` says what each key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model.stages import Stage
from service.inference import Test, paired
from service.record.checks import checks
from service.record.contents import Record, record_facts
from service.record.facts import Facts, SeedFacts
from service.stats import Sample
from service.verdicts import GateVerdict, RulesVerdict

MEASURED = (
    "val_loss",
    "val_bpb",
    "val_loss_std",
    "val_bpb_std",
    "seeds",
    "seed_results",
    "bytes_total",
    "artifact_bytes_mean",
    "artifact_bytes_max",
    "bytes_code",
)
"""The keys whose values follow from logs and code alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRow:
    """One seed."""

    val_bpb: float
    val_loss: float
    artifact_bytes: int
    steps: int
    step_avg_ms: float
    train_time_s: float
    eval_time_s: float
    sliding_val_bpb: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRow:
    """One gate of a rule set."""

    kept: bool | None
    """None: it can't be said."""
    decides: bool
    delta_bpb: float | None
    margin_bpb: float | None
    statistic: float | None
    df: float | None
    p_value: float | None
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RulesRow:
    """One rule set."""

    kept: bool | None
    gates: Mapping[str, GateRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlikeRow:
    """Beside the field's best on the same tokenizer."""

    baseline: str
    pr: int | None
    delta_bpb: float
    delta_nats: float | None
    t_statistic: float | None
    welch_df: float | None
    p_value: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseRow:
    """Beside the config that the sweep began from, seed by seed."""

    config: str
    n: int
    delta_bpb: float
    delta_nats: float | None
    t_statistic: float | None
    p_value: float | None
    """One-sided, of the paired t-test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmissionFile:
    """``submission.json``. ``*_std`` is of the sample (n - 1), null for a single seed; ``p_value`` is one-sided."""

    author: str
    github_id: str
    name: str
    blurb: str
    date: str
    track: str
    non_record_reasons: list[str]
    val_loss: float
    val_bpb: float
    val_loss_std: float | None
    val_bpb_std: float | None
    seeds: list[int]
    seed_results: Mapping[str, SeedRow]
    bytes_total: int
    artifact_bytes_mean: float
    artifact_bytes_max: int
    bytes_code: int
    bytes_per_token: float | None
    hardware: str
    pytorch_version: str
    comparison_baseline: str | None
    comparison_baseline_pr: int | None
    comparison_note: str
    delta_bpb: float | None
    delta_nats: float | None
    t_statistic: float | None
    welch_df: float | None
    p_value: float | None
    rules: Mapping[str, RulesRow]
    same_tokenizer: AlikeRow | None
    versus_base: BaseRow | None
    compliance: Mapping[str, bool]
    compliance_evidence: Mapping[str, Mapping[str, float | int]]
    attribution: Mapping[str, str]


def submission(record: Record) -> dict[str, Any]:
    """``submission.json`` of a record; every number comes from its reports, every compliance value is derived."""
    return submission_of(record_facts(record))


def submission_of(facts: Facts) -> dict[str, Any]:
    """``submission.json`` of these facts."""
    about, density, held = facts.about, facts.density, facts.comparison
    sizes = Sample(values={seed.seed: facts.artifact_bytes(seed) for seed in facts.seeds})
    largest = max(facts.artifact_bytes(seed) for seed in facts.seeds)
    ruled = checks(facts)
    file = SubmissionFile(
        author=about.author,
        github_id=about.github_id,
        name=about.name,
        blurb=about.blurb,
        date=about.date,
        track=about.track,
        non_record_reasons=about.non_record,
        val_loss=round(facts.loss.mean, 8),
        val_bpb=round(facts.bpb.mean, 8),
        val_loss_std=_rounded(facts.loss.sd),
        val_bpb_std=_rounded(facts.bpb.sd),
        seeds=[seed.seed for seed in facts.seeds],
        seed_results={str(seed.seed): _result(facts, seed) for seed in facts.seeds},
        bytes_total=largest,
        artifact_bytes_mean=round(sizes.mean, 1),
        artifact_bytes_max=largest,
        bytes_code=facts.code_bytes,
        bytes_per_token=round(density.bytes_per_token, 6) if density else None,
        hardware=hardware(facts),
        pytorch_version=", ".join(sorted({seed.torch for seed in facts.seeds})),
        comparison_baseline=held.theirs.title if held else None,
        comparison_baseline_pr=held.theirs.pr if held else None,
        comparison_note=facts.against.because,
        delta_bpb=_rounded(held.delta_bpb) if held else None,
        delta_nats=_rounded(held.delta_nats) if held else None,
        t_statistic=_short(held.welch.statistic) if held else None,
        welch_df=_short(held.welch.df) if held else None,
        p_value=_short(held.welch.p) if held else None,
        rules={f"{one.rules.name} {one.rules.version}": _rules(one) for one in held.verdicts} if held else {},
        same_tokenizer=_alike(facts),
        versus_base=_versus_base(facts),
        compliance={check.rule: check.kept for check in ruled},
        compliance_evidence={check.rule: dict(check.evidence) for check in ruled},
        attribution={f"#{credit.pr}": _credited(credit.author, credit.what) for credit in facts.credits},
    )
    return asdict(file)


def hardware(facts: Facts) -> str:
    """``8x NVIDIA H100 80GB HBM3``; all of them where seeds ran on different ones."""
    return f"{facts.about.ranks}x {', '.join(sorted({seed.hardware for seed in facts.seeds}))}"


def versus_base(facts: Facts) -> tuple[str, int, Test] | None:
    """The config that the sweep began from, the seeds that it shares with this one's row, and the paired test of their
    differences; None where this is that config, or they share none."""
    base, own = facts.base, facts.own_row
    if base is None or own is None or base is own:
        return None
    pairs = own.bpb.minus(base.bpb).n
    return (base.title, pairs, paired(own.bpb, base.bpb)) if pairs else None


def _versus_base(facts: Facts) -> BaseRow | None:
    found, density = versus_base(facts), facts.density
    if found is None:
        return None
    title, n, test = found
    return BaseRow(
        config=title,
        n=n,
        delta_bpb=round(test.difference, 8),
        delta_nats=_rounded(density.nats(test.difference)) if density else None,
        t_statistic=_short(test.statistic),
        p_value=_short(test.p),
    )


def _alike(facts: Facts) -> AlikeRow | None:
    held = facts.comparison_alike
    if held is None:
        return None
    return AlikeRow(
        baseline=held.theirs.title,
        pr=held.theirs.pr,
        delta_bpb=round(held.delta_bpb, 8),
        delta_nats=_rounded(held.delta_nats),
        t_statistic=_short(held.welch.statistic),
        welch_df=_short(held.welch.df),
        p_value=_short(held.welch.p),
    )


def _result(facts: Facts, seed: SeedFacts) -> SeedRow:
    headline, sliding = seed.scores[facts.about.headline], seed.scores.get(Stage.SLIDING)
    return SeedRow(
        val_bpb=headline.val_bpb,
        val_loss=headline.val_loss,
        artifact_bytes=facts.artifact_bytes(seed),
        steps=seed.steps,
        step_avg_ms=seed.step_avg_ms,
        train_time_s=seed.train_s,
        eval_time_s=seed.eval_s,
        sliding_val_bpb=sliding.val_bpb if sliding else None,
    )


def _rules(verdict: RulesVerdict) -> RulesRow:
    return RulesRow(kept=verdict.kept, gates={one.gate.name: _gate(one) for one in verdict.gates})


def _gate(verdict: GateVerdict) -> GateRow:
    test = verdict.test
    return GateRow(
        kept=verdict.kept,
        decides=verdict.gate.decides,
        delta_bpb=_rounded(test.difference) if test else None,
        margin_bpb=_rounded(test.margin) if test else None,
        statistic=_short(test.statistic) if test else None,
        df=_short(test.df) if test else None,
        p_value=_short(test.p) if test else None,
        because=verdict.because,
    )


def _credited(author: str, what: str) -> str:
    return f"{author}: {what}" if author else what


def _rounded(number: float | None) -> float | None:
    """8 decimals, as a log has them."""
    return None if number is None else round(number, 8)


def _short(number: float | None) -> float | None:
    """6 digits."""
    return None if number is None else float(f"{number:.6g}")
