"""The default: a network that learns English in half a minute on one CPU core."""

from __future__ import annotations

from dataclasses import replace

from model.net.gpt import GPTConfig
from model.optim.groups import OptimConfig
from model.quant.pack import PackConfig
from model.score.windows import WindowConfig
from model.train import TrainConfig
from service.spec import Budget, GangShape, RunSpec
from sweeps.recipes.core import core


def tiny() -> RunSpec:
    """``core`` at 0.34 M parameters: 3 layers of 96, 200 steps of 2,048 tokens, one CPU rank, a cap of 400,000 bytes.

    Ends by steps and not by the clock, so that the same seed gives the same artifact, byte for byte.
    """
    full = core()
    return replace(
        full,
        name="tiny",
        track="tiny_cpu",
        config=replace(
            full.config,
            net=GPTConfig(layers=3, dim=96, heads=3, kv_heads=1, qk_gain=1.5, rope_trained_len=256),
            train=TrainConfig(
                steps=200,
                batch_tokens=2048,
                seq_len=256,
                micro_seqs=4,
                warmup_steps=0,
                warmdown_frac=0.6,
                ema_decay=0.97,
                log_every=50,
                optim=OptimConfig(matrix_lr=0.04, embed_lr=0.07, muon_momentum=0.95, muon_momentum_warmup_steps=100),
            ),
            pack=PackConfig(small_numel=4096),
            score=replace(full.config.score, windows=WindowConfig(seq_len=256, stride=192)),
        ),
        gang=GangShape(ranks=1, threads=1, device="cpu"),
        budget=Budget(artifact_bytes=400_000),
        notes="CPU twin of core: the whole main job in minutes",
        baseline="core",
    )
