"""From frozen hidden states to fitted distributions (openai/parameter-golf #1084, #1229, #1303; Hu et al. 2025,
arXiv:2505.12392).

The network is frozen and only some rows carry loss, so nothing here runs autograd, and no row without loss gets
logits: with Z = H W^T / c known for the loss rows, a step is one pass over Z (``gradient``) and two products with W.
Several configurations share the forward and Z; each gives the same numbers as alone.

Dimensions: B windows of T rows, R of them with loss, S scored; D model, V vocabulary; G groups of windows with shared
parameters, P = D + V: shift and bias side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from model.slot.adamw import Gradient, adamw_steps
from model.slot.config import Fit
from model.slot.gradient import offset_gradient, offset_loss
from model.slot.lbfgs import Loss, lbfgs_steps
from model.slot.rows import Head, Rows, rows_of


@torch.no_grad()
def slot_nats(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    targets_BT: Tensor,
    loss_BT: Tensor,
    configs: Sequence[Fit],
    *,
    cap: float,
    scored_BT: Tensor | None = None,
) -> list[Tensor]:
    """Cross-entropy in nats of the scored rows of all windows, one after another: a tensor (rows,) a configuration.

    hidden (B, T, D) are final-normed states, head (V, D), ``cap`` the soft cap. The masks (B, T) say which rows carry
    loss and which are scored (by default the same).

    Raises:
        ValueError: no row carries loss or none is scored, shapes don't fit, or hidden states hold NaN.
    """
    scored_BT = loss_BT if scored_BT is None else scored_BT
    predictions = predict(hidden_BTD, Head.of(head_VD, cap), targets_BT, loss_BT, scored_BT, configs)
    return [-torch.cat(rows).gather(1, targets_BT[scored_BT][:, None]).squeeze(1) for _, rows in predictions]


@torch.no_grad()
def predict(
    hidden_BTD: Tensor,
    head: Head,
    targets_BT: Tensor,
    loss_BT: Tensor,
    scored_BT: Tensor,
    configs: Sequence[Fit],
    starts: Sequence[Tensor] | None = None,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For each configuration its fitted parameters (G, P) and the log-probabilities (S, V) of each window's rows.

    ``starts`` has the parameters (G, P) that each begins from, by default zero; they are fitted in place.

    Raises:
        ValueError: as :func:`slot_nats`.
    """
    check_windows(hidden_BTD, head, targets_BT, loss_BT, scored_BT)
    groupings = {config.per for config in configs}
    same = torch.equal(loss_BT, scored_BT)  # then their logits are made once
    loss = {per: _rows(hidden_BTD, head, targets_BT, loss_BT, per == "batch", keep=same) for per in groupings}
    groups = [1 if config.per == "batch" else len(hidden_BTD) for config in configs]
    fitted = starts or [torch.zeros(G, head.parameters, device=hidden_BTD.device) for G in groups]
    for per in groupings:
        for rows in loss[per]:
            for config, w_GP in zip(configs, fitted, strict=True):
                if config.per == per:
                    fit_groups(w_GP[rows.groups], rows, head, int(loss_BT.sum()), config)
    scored = (
        loss
        if same
        else {per: _rows(hidden_BTD, head, targets_BT, scored_BT, per == "batch", keep=True) for per in groupings}
    )
    sizes = scored_BT.sum(1).tolist()
    for config, w_GP in zip(configs, fitted, strict=True):
        flat = torch.cat([fitted_log_probs(w_GP[rows.groups], rows, head) for rows in scored[config.per]])
        yield w_GP, list(flat.split(sizes))


def fit_groups(w_GP: Tensor, rows: Rows, head: Head, batch_rows: int, config: Fit) -> None:
    """Fit some groups, in place from where ``w_GP`` is; ``batch_rows`` are the loss rows of the whole batch."""
    divisor_G = (
        rows.counts_G.clamp(min=1) if config.loss_scale == "window" else torch.tensor([batch_rows], device=w_GP.device)
    )
    divisor_G = divisor_G.expand(len(w_GP))
    if config.optimiser == "adamw":
        adamw_steps(w_GP, _gradient_of(rows, head, divisor_G, config), config)
    else:
        for g in range(len(w_GP)):  # line searches stop at different points, so these can't go in step
            one = Rows(groups=slice(g, g + 1), z_GRV=rows.z_GRV[g : g + 1], targets_GR=rows.targets_GR[g : g + 1])
            gradient = _gradient_of(one, head, divisor_G[g : g + 1], config)
            lbfgs_steps(w_GP[g : g + 1], _loss_of(one, head, divisor_G[g : g + 1]), gradient, config)
    if config.clamp:
        w_GP.clamp_(-config.clamp, config.clamp)


def fitted_log_probs(w_GP: Tensor, rows: Rows, head: Head) -> Tensor:
    """Log-probabilities (rows of all groups, V), without the padding."""
    counts = rows.counts_G.tolist()
    groups = zip(rows.z_GRV, head.offset(w_GP), counts, strict=True)  # one by one, for a CPU's cache
    return torch.cat([(z_RV[:n] + offset_V).tanh_().mul_(head.cap).log_softmax(-1) for z_RV, offset_V, n in groups])


def check_windows(hidden_BTD: Tensor, head: Head, targets_BT: Tensor, loss_BT: Tensor, scored_BT: Tensor) -> None:
    """Refuse what can't be fitted.

    Raises:
        ValueError: with the shapes, or what is missing.
    """
    shapes = {"targets": targets_BT.shape, "loss mask": loss_BT.shape, "scored mask": scored_BT.shape}
    wrong = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if shape != hidden_BTD.shape[:2]]
    if wrong or hidden_BTD.shape[2] != head.dim:
        raise ValueError(
            f"SLOT: hidden states {tuple(hidden_BTD.shape)} and head {tuple(head.weight_VD.shape)} don't go with "
            f"{', '.join(wrong) or 'each other'}"
        )
    for name, mask in (("carries loss", loss_BT), ("is scored", scored_BT)):
        if not bool(mask.any()):
            raise ValueError(f"SLOT: no row {name}; the mask is empty")
    if not bool(torch.isfinite(hidden_BTD).all()):
        raise ValueError("SLOT: the hidden states hold NaN or infinity: did the network diverge?")


def _rows(
    hidden_BTD: Tensor, head: Head, targets_BT: Tensor, mask_BT: Tensor, whole_batch: bool, keep: bool
) -> Iterable[Rows]:
    """As :func:`rows_of`; kept, to be gone through again, where that is asked for."""
    rows = rows_of(hidden_BTD, head, targets_BT, mask_BT, whole_batch)
    return list(rows) if keep else rows


def _gradient_of(rows: Rows, head: Head, divisor_G: Tensor, config: Fit) -> Gradient:
    """The gradient of the mean loss as a function of the parameters; zero for those that aren't fitted."""
    V, D = head.weight_VD.shape
    grad_GP = torch.zeros(len(divisor_G), D + V, device=divisor_G.device)
    grad_GV = torch.empty(len(divisor_G), V, device=divisor_G.device)

    def gradient(w_GP: Tensor) -> Tensor:
        offset_gradient(rows.z_GRV, head.offset(w_GP), rows.targets_GR, head.cap, grad_GV)
        grad_GV.div_(divisor_G[:, None])
        if config.shift:
            torch.mm(grad_GV, head.weight_VD, out=grad_GP[:, :D])
        if config.bias:
            grad_GP[:, D:] = grad_GV
        return grad_GP

    return gradient


def _loss_of(rows: Rows, head: Head, divisor_G: Tensor) -> Loss:
    return lambda w_GP: offset_loss(rows.z_GRV, head.offset(w_GP), rows.targets_GR, head.cap) / divisor_G
