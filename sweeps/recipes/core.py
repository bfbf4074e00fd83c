"""The field's full size without its tricks."""

from __future__ import annotations

from model.net.gpt import GPTConfig
from model.quant.pack import PackConfig
from model.run import RunConfig
from model.score.sliding import Sliding
from model.score.slot import Slot
from model.score.stage import ScoreConfig
from model.score.windows import WindowConfig
from model.train import TrainConfig
from service.spec import Budget, GangShape, RunSpec
from sweeps.recipes.credits import PR1303, STACK


def core() -> RunSpec:
    """The core of the SP1024 stack at full size for 8 GPUs: 11 layers of 512, 600 s of training, 16,000,000 bytes.

    What openai/parameter-golf #1303 builds on, without hash embedding, gates, value embeddings, cross-head attention
    and late QAT. SLOT fits on context, not on the scored positions as #1303 does.
    """
    return RunSpec(
        name="core",
        config=RunConfig(
            net=GPTConfig(),
            train=TrainConfig(minutes=10.0),
            pack=PackConfig(),
            score=ScoreConfig(windows=WindowConfig(seq_len=2048, stride=64), sliding=Sliding(), slot=Slot()),
        ),
        gang=GangShape(ranks=8, threads=4, device="cuda", hardware="H100-SXM"),
        budget=Budget(),
        notes="SP1024 core at full size; needs 8 GPUs",
        credits=(*STACK, PR1303),
    )
