"""The best legal stack that can be composed of what is here."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.adam import AdamRule
from model.adapt.ttt import Ttt
from model.net.bigram import BigramHash
from model.net.gpt import GPTConfig
from model.net.lanes import TwoLanes
from model.net.smear import SmearGate
from model.net.value_embedding import ValueEmbedding
from model.optim.groups import OptimConfig
from model.optim.parallel_muon import ParallelMuon
from model.optim.polar import PolarExpress
from model.quant.gptq import Gptq
from model.quant.pack import PackConfig
from model.score.windows import WindowConfig
from service.spec import RunSpec
from sweeps.recipes.credits import (
    PR1135,
    PR1413,
    PR1514,
    PR1787,
    PR1855,
    RANS,
    ROW_MUON,
    SMEAR_FIX,
    STACK,
    WARMDOWN,
)
from sweeps.recipes.naive import CPU_CAP_BYTES, naive_cpu
from sweeps.recipes.pr1493 import pr1493
from sweeps.recipes.twins import twin_of

PACK = PackConfig(gptq=Gptq(), fit_to=16_000_000, codec="rans")
"""How its weights are packed, in one place; below, at the size for CPUs."""
PACK_CPU = PackConfig(gptq=Gptq(), fit_to=CPU_CAP_BYTES, small_numel=4096, codec="rans")


def house() -> RunSpec:
    """#1493 and what later records gained in the same ways, all of it honest: 35,945,066 parameters.

    From #1394 and #1493: SP8192, MLP 4x, gated skips, XSA, layers 3 to 5 looped twice more from 0.35 of the clock, QK
    gain 5.25, MuonEq-R, GPTQ, and test-time training that learns from a chunk once it is scored. From #1514: Muon's
    momentum of 0.97. From #1529: attention and MLP on two lanes from layer 8. From #1344 and #1855: Polar Express.
    From #1851: SmearGate that ends at documents. From the record of 2026-04-23: a rate of 0.026, a warmdown over 0.75
    to 0.1. Muon's work is shared (#399, #1135). Bits and steps are chosen to fill the cap (:mod:`model.quant.fit`),
    coded by rANS (#1123). Never measured at this size.
    """
    spec = pr1493()
    config = spec.config
    optim = replace(
        config.train.optim,
        matrix_lr=0.026,
        muon_momentum=0.97,
        orthogonaliser=PolarExpress(),
        sharing=ParallelMuon(),
    )
    return replace(
        spec,
        name="house",
        config=replace(
            config,
            net=replace(config.net, parallel=TwoLanes(), smear=SmearGate(document_start=1)),
            train=replace(config.train, warmdown_frac=0.75, min_lr=0.1, optim=optim),
            pack=PACK,
        ),
        notes="the best legal stack of what is here",
        credits=(*spec.credits, PR1514, PR1855, SMEAR_FIX, PR1787, PR1135, RANS),
    )


def house_tiny() -> RunSpec:
    """:func:`house` on a CPU core, in seconds."""
    return twin_of(house(), "house_tiny")


def house_cpu() -> RunSpec:
    """What of :func:`house` and of the SP1024 stacks pays for itself in a minute on a CPU core: 0.88 M parameters.

    As deep and wide as ``naive_cpu``, on the same batches, under the same clock and cap. Beside a larger MLP
    (#493), partial RoPE and LN scale (#315): a hash embedding (#162), SmearGate (#65, #1851), value embeddings (#374),
    MuonEq-R (#1217), a warmdown over most of the clock to 0 (#1394), EMA (#401), clipped gradients, steps that fill the
    cap, GPTQ (#1394), rANS (#1123), windows that overlap, and score-first test-time training (#1413) by AdamW. Depth
    recurrence and XSA, which cost more steps here than they gain, value residuals and two lanes are left out.
    """
    spec = naive_cpu()
    config = spec.config
    optim = OptimConfig(
        matrix_lr=0.04,
        scalar_lr=0.04,
        embed_lr=0.07,
        muon_momentum=0.95,
        muon_momentum_start=0.85,
        muon_momentum_warmup_steps=100,
        muon_row_normalize=True,
        muon_wd=0.0,
        adam_wd=0.0,
    )
    return replace(
        spec,
        name="house_cpu",
        config=replace(
            config,
            net=GPTConfig(
                layers=4,
                dim=128,
                heads=4,
                kv_heads=2,
                rope_trained_len=256,
                bigram=BigramHash(rows=2048, width=48),
                smear=SmearGate(document_start=1),
                value_embedding=ValueEmbedding(width=48),
            ),
            train=replace(config.train, warmdown_frac=0.8, grad_clip=0.3, ema_decay=0.97, optim=optim),
            pack=PACK_CPU,
            score=replace(
                config.score,
                windows=WindowConfig(seq_len=256, stride=192),
                ttt=Ttt(rule=AdamRule(), lr=0.001, epochs=1, chunk_tokens=8192, batch_seqs=8, micro_seqs=8),
            ),
        ),
        notes="house, sized for two CPU cores",
        credits=(*STACK, SMEAR_FIX, ROW_MUON, WARMDOWN, RANS, PR1413),
    )
