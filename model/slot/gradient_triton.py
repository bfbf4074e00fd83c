"""The gradient of ``gradient`` as one Triton kernel: Z is read once a step and nothing of its size is written.

A program takes some rows of one group and the whole vocabulary, and leaves their sum; the sums are added outside, in
a fixed order, so that the result repeats. Interpreted on a CPU with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from model.slot.config import LARGEST_SAFE_CAP

KERNEL_ROWS = 16
"""Rows of one program: enough programs to fill a GPU, few enough sums to add."""

tl: Any
"""Triton's language, once :func:`rows_kernel` has imported it; a kernel finds its names among the module's."""


def triton_gradient(z_GRV: Tensor, offset_GV: Tensor, targets_GR: Tensor, cap: float, out_GV: Tensor) -> None:
    """Write G (G, V) to ``out_GV``, as ``gradient.offset_gradient`` says; float32, contiguous."""
    G, R, V = z_GRV.shape
    programs, block = -(-R // KERNEL_ROWS), 1 << (V - 1).bit_length()
    part_GNV = torch.empty(G, programs, V, device=z_GRV.device)
    rows_kernel()[(G, programs)](
        z_GRV,
        offset_GV,
        targets_GR,
        part_GNV,
        R,
        V,
        cap,
        ROWS=KERNEL_ROWS,
        BLOCK_V=block,
        SAFE=cap <= LARGEST_SAFE_CAP,
        num_warps=4 if block <= 2048 else 8,
    )
    torch.sum(part_GNV, 1, out=out_GV)


@functools.cache
def rows_kernel() -> Any:
    """The kernel; None where Triton isn't installed, which takes a second to import and so isn't before it is used."""
    global tl
    try:
        import triton
        import triton.language

        tl = triton.language
    except ImportError:
        return None

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        z_ptr,
        offset_ptr,
        target_ptr,
        part_ptr,
        R,
        V,
        cap,
        ROWS: tl.constexpr,
        BLOCK_V: tl.constexpr,
        SAFE: tl.constexpr,
    ):
        group, part = tl.program_id(0), tl.program_id(1)
        v = tl.arange(0, BLOCK_V)
        there = v < V
        offset = tl.load(offset_ptr + group * V + v, mask=there, other=0.0)
        total = tl.zeros([BLOCK_V], dtype=tl.float32)
        for i in range(ROWS):
            row = part * ROWS + i
            place = group * R + tl.minimum(row, R - 1)  # beyond the last row: that one again, to be left out below
            target = tl.load(target_ptr + place)
            z = tl.load(z_ptr + place.to(tl.int64) * V + v, mask=there, other=0.0)
            t = 2.0 * tl.sigmoid(2.0 * (z + offset)) - 1.0  # tanh, which Triton's core doesn't have
            logit = cap * t
            if not SAFE:
                logit -= tl.max(tl.where(there, logit, float("-inf")), axis=0)
            e = tl.where(there, tl.exp(logit), 0.0)
            p = e / tl.sum(e, axis=0)
            grad = (p - tl.where(v == target, 1.0, 0.0)) * (1.0 - t * t)
            total += tl.where((row < R) & (target >= 0), grad, 0.0)
        tl.store(part_ptr + (group * tl.num_programs(1) + part) * V + v, total, mask=there)

    return kernel
