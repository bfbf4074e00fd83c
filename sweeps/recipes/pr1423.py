"""openai/parameter-golf #1423 (aryanbhosale): the SP8192 stack trained on the validation split before packing."""

from __future__ import annotations

from dataclasses import replace

from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from model.net.gpt import GPTConfig
from model.net.recurrence import Recurrence
from model.net.skip_gates import SkipGates
from model.net.smear import SmearGate
from model.net.xsa import Xsa
from model.optim.parallel_muon import ParallelMuon
from model.quant.gptq import Gptq
from model.quant.pack import PackConfig
from model.quant.sdclip import SdClip
from service.spec import RunSpec
from sweeps.recipes.core import core
from sweeps.recipes.credits import PR1135, PR1416, PR1423, ROW_MUON, STACK
from sweeps.recipes.twins import twin_of


def pr1423() -> RunSpec:
    """SP8192, MLP 4x, gated skips, SmearGate, QK gain 5, weight decay 0.085 as coded: 35,941,976 parameters.

    Its title, README and submission.json name depth recurrence and MuonEq-R; neither is in the file, and
    :func:`pr1423_as_claimed` has them. **It leaks**: six epochs of AdamW on the validation split before packing, 1.0791
    bits per byte. It asks for two frozen blocks, which in a banked model freezes 4,112 small weights: none here. SWA is
    collected and not applied. Its GPTQ damps twice, on 256 train batches; its "SDClip" has the older scripts' floor.
    """
    spec = core()
    config = spec.config
    optim = replace(config.train.optim, muon_wd=0.085, adam_wd=0.02, embed_wd=0.085, sharing=ParallelMuon())
    return replace(
        spec,
        name="pr1423",
        config=replace(
            config,
            net=GPTConfig(
                vocab_size=8192, mlp_mult=4, qk_gain=5.0, skip_gates=SkipGates(), smear=SmearGate(), xsa=Xsa()
            ),
            train=replace(config.train, warmdown_frac=0.667, optim=optim),
            adapt=AdaptConfig(prequant=Prequant(lr=0.0005, epochs=6, freeze_blocks=0)),
            pack=PackConfig(
                matrices=SdClip(floor=1.0),
                tables=SdClip(sigmas=20.0, floor=1.0),
                gptq=Gptq(batches=256, damping=0.0201),
            ),
            score=replace(config.score, slot=None),
        ),
        notes="#1423 as coded: leaks, trained on the validation split; no recurrence, no MuonEq-R",
        credits=(*STACK, PR1423, PR1416, PR1135),
    )


def pr1423_as_claimed() -> RunSpec:
    """:func:`pr1423` with what it says it has: layers 4 and 5 looped twice more as in #1394, and MuonEq-R.

    35,944,024 parameters, for two more skips. **It leaks** as that does.
    """
    spec = pr1423()
    config = spec.config
    optim = replace(config.train.optim, muon_row_normalize=True)
    return replace(
        spec,
        name="pr1423_as_claimed",
        config=replace(
            config,
            net=replace(config.net, recurrence=Recurrence()),
            train=replace(config.train, optim=optim),
        ),
        notes="#1423 with the depth recurrence and MuonEq-R of its title: leaks as it does",
        credits=(*spec.credits, ROW_MUON),
    )


def pr1423_tiny() -> RunSpec:
    """:func:`pr1423` on a CPU core, in seconds."""
    return twin_of(pr1423(), "pr1423_tiny")


def pr1423_as_claimed_tiny() -> RunSpec:
    """:func:`pr1423_as_claimed` on a CPU core, in seconds."""
    return twin_of(pr1423_as_claimed(), "pr1423_as_claimed_tiny")
