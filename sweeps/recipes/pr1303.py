"""openai/parameter-golf #1303 (anthony-maio): 0.9462 bits per byte with SLOT on the scored positions."""

from __future__ import annotations

from dataclasses import replace

from model.net.bigram import BigramHash
from model.net.gpt import GPTConfig
from model.net.smear import SmearGate
from model.net.value_embedding import ValueEmbedding
from model.net.value_residual import ValueResidual
from model.net.xsa import Xsa
from model.quant.clips import ClipSearch, QuantileClip
from model.quant.pack import PackConfig
from model.score.slot import Slot
from service.spec import RunSpec
from sweeps.recipes.core import core
from sweeps.recipes.twins import twin_of


def pr1303() -> RunSpec:
    """The SP1024 stack of #175 with XSA in all layers, QK gain 4 and SLOT-16: 26,862,694 parameters.

    As coded, not as said: late QAT is asked for at 0.15 but dead once compiled, and SWA is collected but only the EMA
    is packed, so neither is on here. **It leaks**: SLOT fits each window's shift and bias on the very tokens that it
    then scores; without that it scores about 1.12. The rounding is the script's, with the floor of 1/31 under a row's
    step; the container is this project's.
    """
    spec = core()
    config = spec.config
    return replace(
        spec,
        name="pr1303",
        config=replace(
            config,
            net=GPTConfig(
                bigram=BigramHash(),
                smear=SmearGate(),
                value_embedding=ValueEmbedding(),
                value_residual=ValueResidual(),
                xsa=Xsa(),
            ),
            train=replace(config.train, warmdown_steps=3500),
            pack=PackConfig(matrices=ClipSearch(), tables=QuantileClip(), codec="lzma"),
            score=replace(config.score, slot=Slot(loss_on="scored")),
        ),
        notes="#1303 as coded: leaks, its SLOT fits on what it scores",
    )


def pr1303_tiny() -> RunSpec:
    """:func:`pr1303` on a CPU core, in seconds."""
    return twin_of(pr1303(), "pr1303_tiny")
