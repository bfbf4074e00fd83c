"""``python tests/bench/loader.py``: how many tokens a second one core makes into a rank's batches, against the need.

A rank of 8 takes 1/8 of 786,432 tokens every 91 ms (openai/parameter-golf #1313's step on 8 H100): 1.08 million a
second. Shards are written to a temporary folder first, and lie in the page cache then, as a node's do once copied.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from model.data.batches import Batches
from model.data.orders import ORDERS
from model.data.prefetch import prefetched
from model.data.shards import ShardStream, read_shard, write_shard

SEQ_LEN, BATCH_TOKENS, WORLD = 2048, 786_432, 8
STEP_S = 0.091
NEED = BATCH_TOKENS / WORLD / STEP_S
"""Tokens a second of one rank."""
CPU = torch.device("cpu")


def shards_in(folder: Path, shards: int, tokens: int) -> ShardStream:
    """``shards`` of ``tokens`` random tokens each."""
    random = np.random.default_rng(0)
    paths = [folder / f"train_{i:06d}.bin" for i in range(shards)]
    for path in paths:
        write_shard(path, random.integers(0, 1024, tokens, dtype=np.uint16))
    return ShardStream({path: read_shard(path) for path in paths}, 1024)


def rates(batches: Batches, steps: int, times: int) -> tuple[float, float]:
    """Median tokens a second of this rank: made in the loop itself, and taken from the prefetching thread."""
    local = steps * batches.batch_seqs // batches.world * batches.seq_len
    plain, ahead = [], []
    for turn in range(times):
        begin = turn * steps
        started = time.perf_counter()
        for step in range(begin, begin + steps):
            batches(step)
        plain.append(local / (time.perf_counter() - started))
        with prefetched(batches, CPU) as batch_at:
            started = time.perf_counter()
            for step in range(begin, begin + steps):
                batch_at(step)
            ahead.append(local / (time.perf_counter() - started))
    return statistics.median(plain), statistics.median(ahead)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--shard-tokens", type=int, default=20_000_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stream = shards_in(Path(folder), args.shards, args.shard_tokens)
        print(f"needed: {NEED:,.0f} tokens/s a rank; asked for: 20 times that", file=sys.stderr)
        for order in ORDERS:
            batches = Batches(
                tokens=stream,
                seq_len=SEQ_LEN,
                batch_seqs=BATCH_TOKENS // SEQ_LEN,
                rank=3,
                world=WORLD,
                order=order,  # type: ignore[arg-type]
            )
            plain, ahead = rates(batches, args.steps, args.times)
            print(
                f"{order:>10}: {plain:,.0f} tokens/s, {plain / NEED:.0f} times the need "
                f"(through the thread {ahead:,.0f}, {ahead / NEED:.0f} times)"
            )


if __name__ == "__main__":
    main()
