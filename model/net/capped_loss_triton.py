"""The two operations of ``capped_loss`` as Triton kernels: a program takes one row, reads it once, and writes a number
or the row's gradient. Interpreted on a CPU with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

loss_tl: Any
"""Triton's language, once :func:`loss_kernels` has imported it; a kernel finds its names among the module's."""


def triton_nats(raw_RV: Tensor, targets_R: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Loss and log-sum-exp (R,), as ``capped_loss.capped_nats`` says."""
    raw_RV = raw_RV.contiguous()
    R, V = raw_RV.shape
    nats, log_sum = (torch.empty(R, dtype=torch.float32, device=raw_RV.device) for _ in range(2))
    forward, _ = loss_kernels()
    forward[(R,)](raw_RV, targets_R, nats, log_sum, V, cap, **row_shape(V))
    return nats, log_sum


def triton_loss_gradient(raw_RV: Tensor, targets_R: Tensor, log_sum_R: Tensor, grad_R: Tensor, cap: float) -> Tensor:
    """The gradient (R, V), as ``capped_loss.capped_gradient`` says."""
    raw_RV = raw_RV.contiguous()
    R, V = raw_RV.shape
    out_RV = torch.empty_like(raw_RV)
    _, backward = loss_kernels()
    backward[(R,)](raw_RV, targets_R, log_sum_R, grad_R, out_RV, V, cap, **row_shape(V))
    return out_RV


def row_shape(V: int) -> dict[str, int]:
    """How wide a program is for a row of ``V``."""
    block = 1 << (V - 1).bit_length()
    return {"BLOCK_V": block, "num_warps": 4 if block <= 2048 else 8 if block <= 8192 else 16}


@functools.cache
def loss_kernels() -> Any:
    """Forward and backward; None where Triton isn't installed, which takes a second to import and so isn't before it
    is used."""
    global loss_tl
    try:
        import triton
        import triton.language as tl  # by this name alone the interpreter knows a constexpr

        loss_tl = tl
    except ImportError:
        return None

    @triton.jit  # type: ignore[untyped-decorator]
    def forward(  # type: ignore[no-untyped-def]
        raw_ptr, target_ptr, nats_ptr, log_sum_ptr, V, cap, BLOCK_V: tl.constexpr
    ):
        row = loss_tl.program_id(0)
        v = loss_tl.arange(0, BLOCK_V)
        there = v < V
        z = loss_tl.load(raw_ptr + row.to(loss_tl.int64) * V + v, mask=there, other=0.0).to(loss_tl.float32)
        # tanh, which Triton's core doesn't have
        logit = loss_tl.where(there, cap * (2.0 * loss_tl.sigmoid(2.0 * z / cap) - 1.0), float("-inf"))
        top = loss_tl.max(logit, axis=0)
        log_sum = top + loss_tl.log(loss_tl.sum(loss_tl.exp(logit - top), axis=0))
        at_target = loss_tl.sum(loss_tl.where(v == loss_tl.load(target_ptr + row), logit, 0.0), axis=0)
        loss_tl.store(nats_ptr + row, log_sum - at_target)
        loss_tl.store(log_sum_ptr + row, log_sum)

    @triton.jit  # type: ignore[untyped-decorator]
    def backward(  # type: ignore[no-untyped-def]
        raw_ptr, target_ptr, log_sum_ptr, grad_ptr, out_ptr, V, cap, BLOCK_V: tl.constexpr
    ):
        row = loss_tl.program_id(0)
        v = loss_tl.arange(0, BLOCK_V)
        there = v < V
        place = row.to(loss_tl.int64) * V + v
        z = loss_tl.load(raw_ptr + place, mask=there, other=0.0).to(loss_tl.float32)
        t = 2.0 * loss_tl.sigmoid(2.0 * z / cap) - 1.0
        p = loss_tl.exp(cap * t - loss_tl.load(log_sum_ptr + row))
        hit = loss_tl.where(v == loss_tl.load(target_ptr + row), 1.0, 0.0)
        grad = (p - hit) * (1.0 - t * t) * loss_tl.load(grad_ptr + row)
        loss_tl.store(out_ptr + place, grad.to(out_ptr.dtype.element_ty), mask=there)

    return forward, backward
