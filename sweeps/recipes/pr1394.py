"""openai/parameter-golf #1394: the merged SP8192 record with depth recurrence and MuonEq-R."""

from __future__ import annotations

from dataclasses import replace

from model.net.gpt import GPTConfig
from model.net.recurrence import Recurrence
from model.net.skip_gates import SkipGates
from model.net.xsa import Xsa
from model.quant.gptq import Gptq
from model.quant.pack import PackConfig
from model.quant.sdclip import SdClip
from service.spec import RunSpec
from sweeps.recipes.core import core
from sweeps.recipes.credits import PR1394, ROW_MUON, STACK
from sweeps.recipes.twins import twin_of


def pr1394() -> RunSpec:
    """SP8192, MLP 4x, gated skips, layers 4 and 5 looped twice more from half of the clock on: 35,943,512 parameters.

    Honest: no fit on validation text. 588 s of training, because 12 are kept for GPTQ, on 64 batches of the train split
    with the steps of its SDClip. Its eight ranks see other tokens each and the first one's count; here they share them.
    Its loader draws rows at random, and so does this order.
    """
    spec = core()
    config = spec.config
    optim = replace(
        config.train.optim,
        matrix_lr=0.02,
        scalar_lr=0.02,
        embed_lr=0.03,
        muon_row_normalize=True,
        muon_wd=0.085,
        adam_wd=0.02,
        embed_wd=0.085,
    )
    return replace(
        spec,
        name="pr1394",
        config=replace(
            config,
            net=GPTConfig(
                vocab_size=8192,
                mlp_mult=4,
                rope_trained_len=2048,
                skip_gates=SkipGates(),
                xsa=Xsa(),
                recurrence=Recurrence(),
            ),
            train=replace(config.train, order="shuffled", minutes=9.8, warmdown_frac=0.667, optim=optim),
            pack=PackConfig(matrices=SdClip(), tables=SdClip(sigmas=20.0), gptq=Gptq()),
            score=replace(config.score, slot=None),
        ),
        notes="#1394 as coded",
        credits=(*STACK, PR1394, ROW_MUON),
    )


def pr1394_tiny() -> RunSpec:
    """:func:`pr1394` on a CPU core, in seconds."""
    return twin_of(pr1394(), "pr1394_tiny")
