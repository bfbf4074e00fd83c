"""One rank of a gang of two, for test_gang.py: what every collective gave it, as a line of JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from model.data.batches import Batches
from model.gang import join_gang
from model.net.gpt import GPTConfig
from model.score.bpb import Tally
from model.score.stream import Stream
from model.train import TrainConfig, fit

NET = GPTConfig(vocab_size=40, layers=2, dim=16, heads=4, kv_heads=2, mlp_mult=2, rope_dims=4)
TRAIN = TrainConfig(steps=5, batch_tokens=64, seq_len=16, micro_seqs=1, warmup_steps=1, ema_decay=0.5)
TOKENS = (np.arange(500) * 7 % 40).astype(np.uint16)


def train(rank: int, world: int, gang: object) -> tuple[list[float], list[float]]:
    """The curve of a tiny run and some of its last weights."""
    torch.manual_seed(1)
    net = NET.build()
    batches = Batches(tokens=TOKENS, seq_len=16, batch_seqs=4, rank=rank, world=world)
    curve, _ = fit(net, batches, TRAIN, gang)  # type: ignore[arg-type]
    return curve, net.state_dict()["blocks.1.mlp.down.weight"].flatten()[:50].tolist()


def main() -> None:
    with join_gang("cpu", 1) as gang:
        parameter = torch.nn.Parameter(torch.zeros(2, 2))
        parameter.grad = torch.full((2, 2), float(1 + 2 * gang.rank))
        frozen = torch.nn.Parameter(torch.zeros(3))
        gang.average_gradients([parameter, frozen])
        tally = Tally(Stream(tokens=np.zeros(5, dtype=np.uint16)), np.array([1, 2, 3, 4]), gang)
        tally.trained(0, 3)
        tally.add([2 * gang.rank], -(torch.tensor([1.0, 2.0]) + gang.rank)[None, :, None])
        score = tally.score()
        gang.barrier()
        curve, weights = train(gang.rank, gang.world, gang)
        gang.log(f"only from rank {gang.rank}")
        seen = {
            "rank": gang.rank,
            "world": gang.world,
            "chief": gang.chief,
            "sum": gang.sum_(torch.tensor([1.0 + gang.rank, 10.0])).tolist(),
            "first": gang.first(5.5 + gang.rank),
            "gradient": parameter.grad.flatten().tolist(),
            "frozen": frozen.grad,
            "loss": score.val_loss_nats,
            "twice": score.scored_twice,
            "exposed": score.exposed,
            "gathered": gang.gather({"rank": gang.rank}),
            "curve": curve,
            "weights": weights,
        }
    print(json.dumps(seen), file=sys.stderr)


if __name__ == "__main__":
    main()
