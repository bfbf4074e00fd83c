"""The tiny run behind ``tiny_run.json``. ``python tests/golden/rewrite.py`` runs it and writes the file anew.

Do so only for a change that is meant to change results, and say in the commit why.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.data.batches import Batches
from model.data.shards import Tokens
from model.gang import Gang
from model.net.gpt import GPTConfig
from model.quant.container import pack_container
from model.quant.pack import PackConfig, pack_weights
from model.train import TrainConfig, fit

GOLDEN = Path(__file__).with_name("tiny_run.json")
NET = GPTConfig(
    vocab_size=64, layers=2, dim=32, heads=4, kv_heads=2, mlp_mult=2, rope_dims=4, rope_trained_len=16, embed_std=0.02
)
TRAIN = TrainConfig(steps=12, batch_tokens=128, seq_len=32, micro_seqs=2, warmup_steps=2, ema_decay=0.7, log_every=12)
PACK = PackConfig(small_numel=256, codec="raw")


def synthetic_tokens(count: int) -> Tokens:
    """A linear congruential generator (Knuth's MMIX constants) blended with a rule, in plain integers."""
    state, token, tokens = 1, 1, []
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        token = (5 * token + 3) % 64 if (state >> 33) % 8 else (state >> 40) % 64
        tokens.append(token)
    return np.array(tokens, dtype=np.uint16)


def machine() -> str:
    """What decides the order of float sums, as far as it can be named."""
    cpuinfo = Path("/proc/cpuinfo")
    words = ("vendor_id", "cpu family", "model\t", "stepping")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    cpu = " ".join(next((line.split(":")[1].strip() for line in lines if line.startswith(word)), "-") for word in words)
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()} {cpu}"


def tiny_run() -> dict[str, Any]:
    """Losses of each step (nats, 6 digits) and the SHA-256 of the packed artifact."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(42)
        net = NET.build()
        batches = Batches(tokens=synthetic_tokens(2000), seq_len=TRAIN.seq_len, batch_seqs=TRAIN.batch_seqs)
        curve, _ = fit(net, batches, TRAIN, Gang())
    finally:
        torch.set_num_threads(threads)
    artifact = pack_container(pack_weights(net.state_dict(), PACK), PACK.codec)
    return {
        "machine": machine(),
        "losses_nats": [round(loss, 6) for loss in curve],
        "artifact_bytes": len(artifact),
        "artifact_sha256": hashlib.sha256(artifact).hexdigest(),
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(tiny_run(), indent=1) + "\n", encoding="utf-8")
