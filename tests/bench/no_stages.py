"""Stages that are finished without having been run, of a corpus that isn't there."""

from __future__ import annotations

import random
from pathlib import Path

from model.data.shards import Corpus
from model.report import StageReport, write_report
from service.adapters.store_fs import FolderStore
from service.stages import PlannedStage, made_of

CORPUS = Corpus(
    folder=Path("/nowhere"),
    name="bench",
    digest="0" * 16,
    vocab_size=1024,
    tokenizer=Path("/nowhere/tokenizer.model"),
    splits={},
)


def publish(store: FolderStore, planned: PlannedStage) -> StageReport:
    """A finished stage without outputs."""
    attempt = store.begin(planned.key)
    (attempt / "out").mkdir()
    (attempt / "log.txt").write_text("", encoding="utf-8")
    val_bpb = random.Random(planned.key).gauss(2.0, 0.01)
    metrics = {"val_bpb": val_bpb, "train_s": 30.0, "eval_s": 5.0, "model_bytes": 300_000.0}
    write_report(attempt / "out", StageReport(stage=planned.stage, seed=planned.seed, elapsed_s=1.0, metrics=metrics))
    return store.publish(planned.key, attempt, made_of(planned))
