"""The audit of one scorer as a stage: the real scorer and batching, the real validation text, a small network.

Nothing is trained or packed before it, so it can run before any GPU is paid for. Not part of a seed's chain.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from model.adapt.stage import Adapter
from model.audit.flips import audited_part
from model.audit.outside import OutsideScorer
from model.audit.passes import Audited, gather_evidence
from model.audit.rules import AUDIT_FILE, judged
from model.audit.scale import batches_for, fewer_epochs, scaled
from model.audit.text import decoded_texts
from model.audit.twin import build_twin
from model.codec import digest, encode
from model.data.shards import open_corpus
from model.data.vocab import byte_table, load_tokenizer
from model.gang import Gang
from model.job import Job
from model.report import write_json
from model.score.scorer import Scorer
from model.score.stream import Stream
from model.score.windows import WindowConfig
from model.train import GPTBuilder

BUDGET_S = 8.0
"""CPU time that flips beyond one of each kind may take, together with the passes over the text as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """What of a run config decides an audit; ``Job.config`` of this stage."""

    net: GPTBuilder
    windows: WindowConfig
    scorer: Scorer | OutsideScorer
    prequant: Adapter | None = None
    """An ``adapt.prequant`` that runs first, as in the chain; None is off."""
    train_seq_len: int = 0
    """For ``prequant``."""


def audit_stage(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    """Audit ``job.config.scorer`` on the first tokens of the validation split; leaves ``audit.json``.

    Returns:
        ``clean`` (1 or 0), ``rules_broken``, ``flips``, ``largest_change_nats``, ``exposed``, ``audit_s``.

    Raises:
        ValueError: the corpus, or a scorer from outside, isn't what it should be.
    """
    started = time.perf_counter()
    config: AuditConfig = job.config
    scorer = config.scorer.load() if isinstance(config.scorer, OutsideScorer) else config.scorer
    scorer, windows, batches, changes = scaled(scorer, config.windows)
    if config.prequant is not None:
        sequence = getattr(config.prequant, "seq_len", 0) or config.train_seq_len
        batches = max(batches, batches_for(windows, 2 * sequence))
    corpus = open_corpus(Path(job.corpus), job.corpus_digest)
    tokenizer = load_tokenizer(corpus.tokenizer)
    stream = audited_part(Stream(tokens=corpus.tokens("val")), windows, batches)
    audited = Audited(
        scorer=scorer,
        windows=windows,
        net=build_twin(config.net),
        stream=stream,
        bytes_per_target=byte_table(tokenizer).count(stream.tokens[:-1], stream.tokens[1:]),
        vocab_size=corpus.vocab_size,
        adapter=fewer_epochs(config.prequant, changes),
        train_seq_len=config.train_seq_len,
    )
    try:
        evidence = gather_evidence(audited, decoded_texts(stream, tokenizer), BUDGET_S, gang.log)
    except Exception as error:
        if isinstance(config.scorer, OutsideScorer):
            raise ValueError(f"scorer {config.scorer.name}: {type(error).__name__}: {error}") from error
        raise
    rules = judged(evidence)
    clean = all(rule.kept for rule in rules)
    for rule in rules:
        gang.log(f"audit: {rule.rule} {'kept' if rule.kept else 'BROKEN'}: {rule.because}")
    write_json(
        out / AUDIT_FILE,
        {
            "clean": clean,
            "rules": [encode(rule) for rule in rules],
            "config_digest": digest(config, 12),
            "shortened_to": changes,
            "targets": stream.targets,
            "twin_parameters": sum(weight.numel() for weight in audited.net.parameters()),
        },
    )
    return {
        "clean": float(clean),
        "rules_broken": sum(not rule.kept for rule in rules),
        "flips": evidence["strict_prefix"]["flips"],
        "largest_change_nats": evidence["strict_prefix"]["largest_change_nats"],
        "exposed": evidence["score_before_update"]["exposed"],
        "audit_s": time.perf_counter() - started,
    }
