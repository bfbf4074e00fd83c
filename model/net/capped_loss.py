"""Cross-entropy of soft-capped logits without the logits: with z the raw ones, c the cap and t = tanh(z / c),

    loss = logsumexp(c t) - c t[y]        d loss / d z = (softmax(c t) - onehot(y)) (1 - t^2)

of each row. Only z, in the type the head gave, and one number a row live until the backward; the float32 logits that
autograd would keep (400 MB for 98,304 rows of 1024) don't exist. Two opaque operations, so that a compiled graph stays
whole; on a GPU each is one kernel (``capped_loss_triton``), elsewhere the plain torch here. R rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.net.capped_loss_triton import loss_kernels, triton_loss_gradient, triton_nats


def capped_cross_entropy(raw_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:
    """Cross-entropy (R,) in nats, float32, of logits ``cap * tanh(raw / cap)``; differentiable in ``raw_RV``."""
    nats: Tensor = CappedCrossEntropy.apply(raw_RV, targets_R, cap)
    return nats


class CappedCrossEntropy(torch.autograd.Function):
    """Joins the two operations."""

    @staticmethod
    def forward(ctx: Any, raw_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:
        nats_R, log_sum_R = capped_nats(raw_RV, targets_R, cap)
        ctx.save_for_backward(raw_RV, targets_R, log_sum_R)
        ctx.cap = cap
        return nats_R

    @staticmethod
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor, None, None]:
        return capped_gradient(*ctx.saved_tensors, grad_R.contiguous(), ctx.cap), None, None


@torch.library.custom_op(
    "caddie::capped_nats", mutates_args=(), schema="(Tensor raw, Tensor targets, float cap) -> (Tensor, Tensor)"
)
def capped_nats(raw_RV: Tensor, targets_R: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """The loss and the logarithm of the sum of exponentials, (R,) each, float32."""
    kernels = raw_RV.is_cuda and loss_kernels() is not None
    return (triton_nats if kernels else plain_nats)(raw_RV, targets_R, cap)


@capped_nats.register_fake
def shapes_of_nats(raw_RV: Tensor, targets_R: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """What a compiler sees of :func:`capped_nats`."""
    row = raw_RV.new_empty(raw_RV.shape[0], dtype=torch.float32)
    return row, torch.empty_like(row)


@torch.library.custom_op(
    "caddie::capped_gradient",
    mutates_args=(),
    schema="(Tensor raw, Tensor targets, Tensor log_sum, Tensor grad, float cap) -> Tensor",
)
def capped_gradient(raw_RV: Tensor, targets_R: Tensor, log_sum_R: Tensor, grad_R: Tensor, cap: float) -> Tensor:
    """The gradient (R, V) of the raw logits in their type, from that of each loss (R,)."""
    kernels = raw_RV.is_cuda and loss_kernels() is not None
    return (triton_loss_gradient if kernels else plain_loss_gradient)(raw_RV, targets_R, log_sum_R, grad_R, cap)


@capped_gradient.register_fake
def shape_of_gradient(raw_RV: Tensor, targets_R: Tensor, log_sum_R: Tensor, grad_R: Tensor, cap: float) -> Tensor:
    """What a compiler sees of :func:`capped_gradient`."""
    return torch.empty_like(raw_RV, memory_format=torch.contiguous_format)


def plain_nats(raw_RV: Tensor, targets_R: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """The first kernel's twin in torch."""
    logits = (raw_RV.float() / cap).tanh_().mul_(cap)
    log_sum = logits.logsumexp(-1)
    return log_sum - logits.gather(1, targets_R[:, None]).squeeze(1), log_sum


def plain_loss_gradient(raw_RV: Tensor, targets_R: Tensor, log_sum_R: Tensor, grad_R: Tensor, cap: float) -> Tensor:
    """The second kernel's twin in torch."""
    t = (raw_RV.float() / cap).tanh_()
    p = (t * cap).sub_(log_sum_R[:, None]).exp_()
    p[torch.arange(len(p), device=p.device), targets_R] -= 1
    return p.mul_(t.square_().neg_().add_(1)).mul_(grad_R[:, None]).to(raw_RV.dtype)
