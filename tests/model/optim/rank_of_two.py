"""One rank of a gang of two, for test_parallel_muon.py: weights after a few steps, as a line of JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from model.data.batches import Batches
from model.gang import Gang, join_gang
from model.net.bigram import BigramHash
from model.net.gpt import GPTConfig
from model.optim.groups import OptimConfig
from model.optim.parallel_muon import ParallelMuon
from model.train import TrainConfig, fit

NET = GPTConfig(
    vocab_size=40,
    layers=3,
    dim=16,
    heads=4,
    kv_heads=2,
    mlp_mult=2,
    rope_dims=4,
    embed_std=0.5,
    bigram=BigramHash(rows=9, width=4),
)
OPTIM = OptimConfig(muon_momentum_warmup_steps=3, muon_row_normalize=True)
TOKENS = (np.arange(500) ** 2 * 7 % 40).astype(np.uint16)


def weights_after(gang: Gang, sharing: ParallelMuon | None, grad_clip: float) -> dict[str, list[float]]:
    """Five steps with three matrices of a shape on two ranks, which doesn't come out even."""
    torch.manual_seed(1)
    net = NET.build()
    config = TrainConfig(
        steps=5,
        batch_tokens=64,
        seq_len=16,
        micro_seqs=1,
        warmup_steps=1,
        ema_decay=0.5,
        grad_clip=grad_clip,
        optim=OptimConfig(muon_momentum_warmup_steps=3, muon_row_normalize=True, sharing=sharing),
    )
    batches = Batches(tokens=TOKENS, seq_len=16, batch_seqs=4, rank=gang.rank, world=gang.world)
    fit(net, batches, config, gang)
    return {name: weight.flatten().tolist() for name, weight in net.state_dict().items()}


def every_run(gang: Gang) -> dict[str, dict[str, list[float]]]:
    """The simple and the parallel form, with and without a clip that bites."""
    return {
        f"{name} {clip}": weights_after(gang, sharing, clip)
        for name, sharing in (("simple", None), ("parallel", ParallelMuon()))
        for clip in (0.0, 0.05)
    }


if __name__ == "__main__":
    with join_gang("cpu", 1) as gang:
        result = every_run(gang)
    print(json.dumps(result), file=sys.stderr)
