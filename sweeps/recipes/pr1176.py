"""openai/parameter-golf #1176 (bigbag): Muon test-time training, then SLOT on the weights that it leaves."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.muon_ttt import MuonRule
from model.adapt.ttt import Ttt
from model.net.bigram import BigramHash
from model.net.gpt import GPTConfig
from model.net.smear import SmearGate
from model.net.value_embedding import ValueEmbedding
from model.net.xsa import Xsa
from model.optim.parallel_muon import ParallelMuon
from model.quant.clips import ClipSearch, QuantileClip
from model.quant.pack import PackConfig
from model.score.slot import Slot
from service.spec import RunSpec
from sweeps.recipes.core import core
from sweeps.recipes.credits import PR1135, PR1176, STACK
from sweeps.recipes.twins import twin_of


def pr1176() -> RunSpec:
    """#1135's banked stack with parallel Muon, a hash embedding of 2816 x 112 and QK gain 4: 27,038,812 parameters.

    **Its SLOT score leaks** twice: test-time training goes over the whole validation split first and its weights stay,
    and one shift per batch is fitted on all positions. 1.0962 bits per byte, in 840 s and more of evaluation. Its
    README names GPTQ and zstd; the runs used neither (int6 and LZMA). It asks for two frozen blocks, which in a banked
    model freezes 4,112 small weights: none here. SWA is collected and not applied, late QAT has nothing to act on. Its
    loader strides within shards and takes its seed from their paths; here the stride is over the whole stream.
    """
    spec = core()
    config = spec.config
    ttt = Ttt(rule=MuonRule(), lr=0.002)
    slot = Slot(
        loss_on="all",
        per="batch",
        bias=False,
        steps=5,
        lr=0.003,
        schedule="constant",
        after=replace(ttt, keep_weights=True),
    )
    return replace(
        spec,
        name="pr1176",
        config=replace(
            config,
            net=GPTConfig(
                bigram=BigramHash(rows=2816, width=112, depth_scaled=False),
                smear=SmearGate(),
                value_embedding=ValueEmbedding(depth_scaled=False),
                xsa=Xsa(),
            ),
            train=replace(
                config.train,
                order="coprime",
                warmdown_steps=3500,
                optim=replace(config.train.optim, projections="adamw", sharing=ParallelMuon()),
            ),
            pack=PackConfig(matrices=ClipSearch(), tables=QuantileClip(), codec="lzma"),
            score=replace(config.score, ttt=ttt, slot=slot),
        ),
        notes="#1176 as coded: its SLOT leaks, on weights trained on all that it scores",
        credits=(*STACK, PR1176, PR1135),
    )


def pr1176_tiny() -> RunSpec:
    """:func:`pr1176` on a CPU core, in seconds."""
    return twin_of(pr1176(), "pr1176_tiny")
