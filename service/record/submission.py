"""``submission.json`` in the shape that most merged records have (openai/parameter-golf #1019, #1493)."""

from __future__ import annotations

from typing import Any

from model.stages import Stage
from service.record.checks import checks
from service.record.contents import Record, record_facts
from service.record.facts import Facts, SeedFacts
from service.stats import Sample

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


def submission(record: Record) -> dict[str, Any]:
    """``submission.json`` of a record; every number comes from its reports, every compliance value is derived."""
    return submission_of(record_facts(record))


def submission_of(facts: Facts) -> dict[str, Any]:
    """``submission.json`` of these facts. ``*_std`` is of the sample (n - 1), null for a single seed."""
    about = facts.about
    loss = Sample(values={seed.seed: seed.scores[about.headline].val_loss for seed in facts.seeds})
    sizes = Sample(values={seed.seed: facts.artifact_bytes(seed) for seed in facts.seeds})
    largest = max(facts.artifact_bytes(seed) for seed in facts.seeds)
    return {
        "author": about.author,
        "github_id": about.github_id,
        "name": about.name,
        "blurb": about.blurb,
        "date": about.date,
        "track": about.track,
        "val_loss": round(loss.mean, 8),
        "val_bpb": round(facts.bpb.mean, 8),
        "val_loss_std": _rounded_sd(loss),
        "val_bpb_std": _rounded_sd(facts.bpb),
        "seeds": [seed.seed for seed in facts.seeds],
        "seed_results": {str(seed.seed): _result(facts, seed) for seed in facts.seeds},
        "bytes_total": largest,
        "artifact_bytes_mean": round(sizes.mean, 1),
        "artifact_bytes_max": largest,
        "bytes_code": facts.code_bytes,
        "hardware": hardware(facts),
        "pytorch_version": ", ".join(sorted({seed.torch for seed in facts.seeds})),
        "compliance": {check.rule: check.kept for check in checks(facts)},
    }


def hardware(facts: Facts) -> str:
    """``8x NVIDIA H100 80GB HBM3``; all of them where seeds ran on different ones."""
    return f"{facts.about.ranks}x {', '.join(sorted({seed.hardware for seed in facts.seeds}))}"


def _result(facts: Facts, seed: SeedFacts) -> dict[str, Any]:
    headline, sliding = seed.scores[facts.about.headline], seed.scores.get(Stage.SLIDING)
    return {
        "val_bpb": headline.val_bpb,
        "val_loss": headline.val_loss,
        "artifact_bytes": facts.artifact_bytes(seed),
        "steps": seed.steps,
        "step_avg_ms": seed.step_avg_ms,
        "train_time_s": seed.train_s,
        "eval_time_s": seed.eval_s,
        "sliding_val_bpb": sliding.val_bpb if sliding else None,
    }


def _rounded_sd(sample: Sample) -> float | None:
    return None if sample.sd is None else round(sample.sd, 8)
