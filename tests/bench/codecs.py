"""Sizes and times of all codecs on the tensors of a trained model, and of ``rans`` on as many weights as the field has.

    python tests/bench/codecs.py CHECKPOINT [--large]

CHECKPOINT is the ``checkpoint.bin`` of a train stage. Each of its matrices is shown with the entropy of single values;
``--large`` codes 27 M synthetic weights, whose rows and columns differ in size as a trained network's.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.quant.codecs import CODECS
from model.quant.container import pack_container, read_container, unpack_container
from model.quant.pack import PackConfig, pack_weights
from model.quant.rans import decode_matrices, encode_matrices
from model.quant.sdclip import SdClip

ROUNDINGS = {
    "largest weight": PackConfig(small_numel=4096),
    "SDClip": PackConfig(small_numel=4096, matrices=SdClip(), tables=SdClip(sigmas=20.0)),
}


def entropy_bytes(q: torch.Tensor) -> float:
    """Of single values."""
    counts = np.unique(q.numpy(), return_counts=True)[1]
    return float((counts * -np.log2(counts / counts.sum())).sum()) / 8


def compare(checkpoint: Path, each: bool) -> None:
    """All codecs on what pack makes of a checkpoint."""
    weights = read_container(checkpoint)
    for name, config in ROUNDINGS.items():
        tensors = pack_weights(weights, config)
        matrices = {key: tensor for key, tensor in tensors.items() if tensor.dtype == torch.int8}
        entropy = sum(map(entropy_bytes, matrices.values()))
        print(f"\n{name}: {sum(t.numel() for t in matrices.values()):,} integers, entropy {entropy:,.0f} bytes")
        sizes = {}
        for codec in CODECS:
            started, cpu = time.perf_counter(), time.process_time()
            packed = pack_container(tensors, codec)
            middle = time.perf_counter()
            assert unpack_container(packed).keys() == tensors.keys()
            wall = (middle - started, time.perf_counter() - middle)
            sizes[codec] = len(packed)
            cpu = time.process_time() - cpu
            print(f"  {codec:7s} {len(packed):9,} bytes  {wall[0]:.2f} + {wall[1]:.2f} s, {cpu:.2f} s CPU")
        best = min(size for codec, size in sizes.items() if codec not in ("raw", "rans"))
        print(f"  rans against the best of the others: {100 * sizes['rans'] / best - 100:+.2f} %")
        only = {codec: len(pack_container(matrices, codec)) for codec in CODECS if codec != "raw"}
        best = min(size for codec, size in only.items() if codec != "rans")
        ours = len(encode_matrices([t.numpy().astype(np.int64) for t in matrices.values()]))
        print(f"  integers alone: {100 * ours / best - 100:+.2f} % against the others,", end=" ")
        print(f"{100 * ours / entropy - 100:+.2f} % against the entropy")
        if each:
            show_each(matrices)


def show_each(matrices: dict[str, torch.Tensor]) -> None:
    """How much each matrix adds to the stream of those before it."""
    before, so_far = 0, []
    for key, tensor in matrices.items():
        so_far.append(tensor.numpy().astype(np.int64))
        size = len(encode_matrices(so_far))
        gained = 100 * (size - before) / entropy_bytes(tensor) - 100
        print(
            f"    {key:40s} {tuple(tensor.shape)!s:14s} {size - before:8,} bytes, {gained:+6.2f} % against its entropy"
        )
        before = size


def large() -> None:
    """The shapes of the field's 11 layers of 512 with its SP1024 embedding, steps of SDClip at 6 bits and 8."""
    random = np.random.default_rng(1)
    shapes = [(1024, 512)] + 11 * [(512, 512), (256, 512), (256, 512), (512, 512), (1536, 512), (512, 1536)]
    matrices = []
    for rows, columns in shapes:
        spread = 0.5 if columns == 1536 else 0.15
        sizes = np.exp(random.normal(0, spread, columns))
        raw = random.normal(0, 1, (rows, columns)) * sizes
        step = raw.std(1, keepdims=True) * (20 / 127 if rows == 1024 else 12.85 / 31)
        matrices.append(np.clip(np.rint(raw / step), -127, 127).astype(np.int64))
    count = sum(q.size for q in matrices)
    entropy = sum(entropy_bytes(torch.from_numpy(q)) for q in matrices)
    started, cpu = time.perf_counter(), time.process_time()
    words = encode_matrices(matrices)
    middle, cpu_middle = time.perf_counter(), time.process_time()
    found = decode_matrices(words, shapes)
    ended, cpu_ended = time.perf_counter(), time.process_time()
    assert all(np.array_equal(a, b) for a, b in zip(found, matrices, strict=True))
    print(f"\n{count:,} synthetic integers: {len(words):,} bytes,", end=" ")
    print(f"{100 * len(words) / entropy - 100:+.2f} % against their entropy")
    print(f"  encode {middle - started:.1f} s ({cpu_middle - cpu:.1f} s CPU),", end=" ")
    print(f"decode {ended - middle:.1f} s ({cpu_ended - cpu_middle:.1f} s CPU)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--each", action="store_true", help="every matrix")
    parser.add_argument("--large", action="store_true", help="27 M weights, too")
    arguments = parser.parse_args()
    if arguments.large:
        large()
    compare(arguments.checkpoint, arguments.each)
