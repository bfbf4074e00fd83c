"""``tiny`` at eight times its training: large enough that adaptation has something to adapt."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.adam import AdamRule
from model.adapt.ttt import Ttt
from model.score.slot import Slot
from model.score.windows import WindowConfig
from service.spec import Budget, RunSpec
from sweeps.recipes.credits import SLOT_24
from sweeps.recipes.tiny import tiny


def small() -> RunSpec:
    """0.7 M parameters: 4 layers of 128, 800 steps of 4,096 tokens, windows of 512 with a stride of 128.

    Both adaptive scores are on: SLOT on context as hard as #1488 fits, and test-time training whose chunks are
    scored with a gentler one.
    """
    plain = tiny()
    config = plain.config
    slot = Slot(steps=24, lr=0.012, lr_min=0.001)
    gentle = replace(slot, lr=0.003)
    return replace(
        plain,
        name="small",
        config=replace(
            config,
            net=replace(config.net, layers=4, dim=128, heads=4, kv_heads=2, rope_trained_len=512),
            train=replace(config.train, steps=800, batch_tokens=4096, seq_len=512, micro_seqs=4),
            score=replace(
                config.score,
                windows=WindowConfig(seq_len=512, stride=128),
                slot=slot,
                ttt=Ttt(rule=AdamRule(), lr=0.001, epochs=2, chunk_tokens=8192, score_with=gentle),
            ),
        ),
        budget=Budget(artifact_bytes=1_600_000, train_s=3600.0, eval_s=3600.0),
        baseline="tiny",
        credits=(*plain.credits, SLOT_24),
        notes="CPU study size: SLOT and TTT on a network that has learned something",
    )
