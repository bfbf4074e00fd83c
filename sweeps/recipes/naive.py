"""openai/parameter-golf's default training script: the baseline from which every record of the field is counted."""

from __future__ import annotations

from dataclasses import replace

from model.net.gpt import GPTConfig
from model.optim.groups import OptimConfig
from model.quant.clips import QuantileClip
from model.quant.pack import PackConfig
from model.score.windows import WindowConfig
from model.train import TrainConfig
from service.spec import Budget, GangShape, RunSpec
from sweeps.recipes.core import core
from sweeps.recipes.credits import PARTS
from sweeps.recipes.twins import twin_of


def naive() -> RunSpec:
    """The public repository's default, its record of 2026-03-17 (NaiveBaseline, 1.2244): 17,059,912 parameters.

    SP1024, 9 layers of 512, relu^2, RoPE over whole heads, torch's own start of the matrices, Muon at 0.04 and Adam
    without weight decay or clipping, a warmdown of 1,200 steps, the last weights, windows that don't overlap. Honest.
    Rounded to int8 with the script's steps, compressed by LZMA where the script takes zlib; the script leaves out the
    tail of the validation split that fills no window, here it is scored, too.
    """
    spec = core()
    optim = OptimConfig(
        matrix_lr=0.04,
        scalar_lr=0.04,
        embed_lr=0.05,
        muon_momentum=0.95,
        muon_momentum_start=0.85,
        muon_momentum_warmup_steps=500,
        muon_wd=0.0,
        adam_wd=0.0,
    )
    return replace(
        spec,
        name="naive",
        config=replace(
            spec.config,
            net=GPTConfig(
                layers=9,
                mlp_mult=2,
                mlp_slope=0.0,
                qk_gain=1.5,
                rope_dims=64,
                ln_scale=False,
                matrix_init="uniform",
            ),
            train=TrainConfig(
                minutes=10.0,
                batch_tokens=524_288,
                seq_len=1024,
                micro_seqs=64,
                warmdown_steps=1200,
                grad_clip=0.0,
                ema_decay=0.0,
                optim=optim,
            ),
            pack=PackConfig(matrix_bits=8, matrices=QuantileClip(), tables=QuantileClip(), codec="lzma"),
            score=replace(spec.config.score, windows=WindowConfig(seq_len=1024, stride=1024), slot=None),
        ),
        notes="the public repository's default",
        credits=PARTS,
    )


def naive_tiny() -> RunSpec:
    """:func:`naive` on a CPU core, in seconds."""
    return twin_of(naive(), "naive_tiny")


CPU_CAP_BYTES = 700_000
"""The field's 0.94 bytes for each of the baseline's parameters, and room for the code."""
WARMDOWN_FRAC = 0.087
"""1,200 of the 13,780 steps that the record has."""
MOMENTUM_STEPS = 20
"""As large a part of some 550 steps, a minute on a CPU core, as its 500 are of those."""


def naive_cpu() -> RunSpec:
    """:func:`naive` at 0.59 M parameters, for a minute on one CPU core: 4 layers of 128, batches of 1,024 tokens.

    Rates, momentum and rounding are the default's; warmdown and warm-up are as large a part of the training as there.
    """
    full = naive()
    config = full.config
    return replace(
        full,
        name="naive_cpu",
        track="bench_cpu",
        config=replace(
            config,
            net=replace(config.net, layers=4, dim=128, heads=4, kv_heads=2, rope_dims=32, rope_trained_len=256),
            train=replace(
                config.train,
                minutes=1.0,
                batch_tokens=1024,
                seq_len=256,
                micro_seqs=4,
                warmup_steps=2,
                warmdown_steps=0,
                warmdown_frac=WARMDOWN_FRAC,
                optim=replace(config.train.optim, muon_momentum_warmup_steps=MOMENTUM_STEPS),
            ),
            pack=replace(config.pack, small_numel=4096),
            score=replace(config.score, windows=WindowConfig(seq_len=256, stride=256)),
        ),
        gang=GangShape(ranks=1, threads=1, device="cpu", hardware="cpu"),
        budget=Budget(artifact_bytes=CPU_CAP_BYTES),
        notes="naive, sized for two CPU cores",
        baseline="naive_cpu",
    )
