"""One rank of a gang of two, for test_two_ranks.py: what adapting on two ranks gives, as a line of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from model.adapt.adam import AdamRule
from model.adapt.muon_ttt import MuonRule
from model.adapt.prequant import Prequant
from model.adapt.sgd import SgdRule
from model.adapt.ttt import Ttt
from model.gang import Gang, join_gang
from model.net.gpt import GPT, GPTConfig
from model.score.bpb import Tally
from model.score.exposure import Exposure, exposure_json
from model.score.slot import Slot
from model.score.stream import Stream
from model.score.windows import WindowConfig

NET = GPTConfig(vocab_size=40, layers=2, dim=16, heads=4, kv_heads=2, mlp_mult=2, rope_dims=4, embed_std=0.5)
STREAM = Stream(tokens=np.random.default_rng(0).integers(0, 40, 133).astype(np.uint16))
WINDOWS = WindowConfig(seq_len=8, stride=3, batch_seqs=2)
# Chunks of 3 sequences in steps of 2 and 1: the ranks get 1 and 1, then 0 and 1.
TTT = Ttt(lr=0.02, epochs=2, chunk_tokens=30, batch_seqs=2, micro_seqs=1, keep_weights=True)
SCORERS = {
    "sgd": TTT,
    "muon": Ttt(lr=0.02, epochs=2, chunk_tokens=30, rule=MuonRule(), freeze_blocks=1, keep_weights=True),
    "slot": Ttt(lr=0.02, epochs=1, chunk_tokens=45, score_with=Slot(steps=3), rule=SgdRule(), keep_weights=True),
}
PREQUANT = Prequant(lr=0.01, epochs=2, batch_seqs=5, rule=AdamRule(eps=1e-3))


def some_net() -> GPT:
    torch.manual_seed(1)
    net = NET.build()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return net


def weights(net: GPT) -> list[float]:
    return [float(value) for p in net.parameters() for value in p.detach().flatten()[:20]]


def results(gang: Gang) -> dict[str, Any]:
    """Scores, weights and notes of every way to adapt."""
    found: dict[str, Any] = {}
    for name, scorer in SCORERS.items():
        net, tally = some_net(), Tally(STREAM, np.ones(STREAM.targets, dtype=np.int64), gang)
        scorer.score_stream(net, STREAM, WINDOWS, tally, gang)
        notes = [row for row in exposure_json(tally.exposure.events) if row["kind"] == "trained"]
        nats = gang.sum_(tally.nats.clone()).tolist()
        found[name] = {"nats": nats, "exposed": tally.score().exposed, "weights": weights(net), "trained": notes}
    net, exposure = some_net(), Exposure()
    loss = PREQUANT.adapt(net, STREAM, 8, exposure, gang)["prequant_loss_nats"]
    found["prequant"] = {"loss": loss, "weights": weights(net), "trained": exposure_json(exposure.events)}
    return found


def main() -> None:
    with join_gang("cpu", 1) as gang:
        found = results(gang)
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
