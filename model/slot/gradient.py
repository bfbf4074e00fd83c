"""The one expensive thing of a SLOT step: from the logits of the loss rows to the gradient of the logits' offset.

With Z = H W^T / c known, an offset o = (d W^T + b) / c and t = tanh(Z + o), the loss is the cross-entropy of c t, and

    G = sum_rows (softmax(c t) - onehot(y)) * (1 - t^2)        the gradient of b, and G W that of d.

G groups of windows that share parameters, R rows each, V vocabulary. Rows whose target is negative are padding, at the
end. What is here is plain torch; ``gradient_triton`` is the same in one kernel for a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.slot.config import LARGEST_SAFE_CAP
from model.slot.gradient_triton import rows_kernel, triton_gradient

CACHE_ROWS_BYTES = 400 * 1024
"""Scratch of one pass over some rows: two of these stay in a core's own cache."""


def offset_gradient(z_GRV: Tensor, offset_GV: Tensor, targets_GR: Tensor, cap: float, out_GV: Tensor) -> None:
    """Write G (G, V), the sum over the rows of each group, to ``out_GV``; not divided by anything."""
    kernel = z_GRV.is_cuda and rows_kernel() is not None
    (triton_gradient if kernel else plain_gradient)(z_GRV, offset_GV, targets_GR, cap, out_GV)


def plain_gradient(z_GRV: Tensor, offset_GV: Tensor, targets_GR: Tensor, cap: float, out_GV: Tensor) -> None:
    """The same in torch, some rows at a time so that they stay in a CPU's cache."""
    _, R, V = z_GRV.shape
    rows = min(R, max(1, CACHE_ROWS_BYTES // (4 * V)))
    scratch = torch.empty(2, rows, V, device=z_GRV.device)
    out_GV.zero_()
    for z_RV, offset_V, targets_R, out_V in zip(z_GRV, offset_GV, targets_GR, out_GV, strict=True):
        count = int((targets_R >= 0).sum())
        for i in range(0, count, rows):
            part = slice(i, min(i + rows, count))
            _add_rows(z_RV[part], offset_V, targets_R[part], cap, out_V, scratch)


def _add_rows(z_RV: Tensor, offset_V: Tensor, targets_R: Tensor, cap: float, out_V: Tensor, scratch: Tensor) -> None:
    t, e = scratch[0, : len(z_RV)], scratch[1, : len(z_RV)]
    torch.add(z_RV, offset_V, out=t).tanh_()
    at_target = t.gather(1, targets_R[:, None]).squeeze(1).square_().sub_(1)  # -(1 - t^2) of each target
    torch.mul(t, cap, out=e)
    if cap > LARGEST_SAFE_CAP:
        e.sub_(e.amax(1, keepdim=True))
    weight_R = e.exp_().sum(1).reciprocal_()
    e.addcmul_(e, t.square_(), value=-1)  # exp(c t) (1 - t^2); the row's 1 / sum comes with the product
    out_V.addmv_(e.mT, weight_R).index_add_(0, targets_R, at_target)


def offset_loss(z_GRV: Tensor, offset_GV: Tensor, targets_GR: Tensor, cap: float) -> Tensor:
    """The cross-entropy (G,) whose gradient :func:`offset_gradient` is: a sum over rows."""
    log_probs = (z_GRV + offset_GV[:, None]).tanh_().mul_(cap).log_softmax(-1)
    nats = -log_probs.gather(2, targets_GR.clamp(min=0)[:, :, None]).squeeze(2)
    return nats.masked_fill_(targets_GR < 0, 0.0).sum(1)
