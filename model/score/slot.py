"""SLOT: per window, a shift of the hidden states and a bias on the logits, fitted by gradient steps (Hu et al. 2025,
arXiv:2505.12392; in the field openai/parameter-golf #1084, #1229, #1303, #1488).

The network is frozen and only rows that carry loss matter, so nothing here runs autograd: with Z = H W^T known,
a step needs o = d W^T + b, t = tanh((Z + o) / c), p = softmax(c t) and

    G = sum_rows (p - onehot(y)) (1 - t^2) / N        gradient of b = G, gradient of d = G W.

``scored`` fits on the very tokens it then scores, as #1229/#1303/#1488 do: it **leaks** the targets and measures
memorisation. ``context`` fits on the positions before them, which have been scored by earlier windows: it doesn't.
The gradient is divided by the loss positions N of the *batch*, as the field does; AdamW's eps is not scale-free, so
``score.windows.batch_seqs`` is a knob of SLOT, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.sliding import hidden_states, log_probs
from model.score.stream import Stream, window_rows
from model.score.windows import WindowConfig

LARGEST_SAFE_CAP = 80.0
"""Up to here exp of a capped logit fits float32, and softmax needs no pass for the row's maximum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Defaults of openai/parameter-golf #1303, but fitted on context."""

    loss_on: Literal["context", "scored"] = "context"
    """``scored`` leaks; records refuse it."""
    steps: int = 16
    lr: float = 0.008
    lr_min: float = 0.0008
    """End of the cosine: lr_t = lr_min + (lr - lr_min) (1 + cos(pi t / steps)) / 2."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-5
    weight_decay: float = 1e-8

    def __post_init__(self) -> None:
        if self.loss_on not in ("context", "scored"):
            raise ValueError(f"score.slot.loss_on must be 'context' or 'scored', got {self.loss_on!r}")
        if self.steps < 0:
            raise ValueError(f"score.slot.steps must be 0 or more, got {self.steps}")
        if self.lr <= 0 or self.lr_min < 0 or self.eps <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"score.slot: lr and eps must be above 0, lr_min and weight_decay 0 or more, "
                f"got {self.lr}, {self.eps}, {self.lr_min}, {self.weight_decay}"
            )
        if not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise ValueError(f"score.slot: betas must be in [0, 1), got {self.beta1}, {self.beta2}")

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Predict every target of ``stream``, after fitting, into ``tally``."""
        for batch in windows.batches(stream.targets, gang):
            inputs, targets = window_rows(stream, batch, gang.device)
            context = batch[0].context
            hidden = hidden_states(net, inputs)
            scored = hidden[:, context:]
            fitted = (
                (scored, targets[:, context:])
                if self.loss_on == "scored"
                else (hidden[:, :context], targets[:, :context])
            )
            firsts = [w.scored for w in batch]
            if fitted[1].shape[1] == 0 or self.steps == 0:
                tally.add(firsts, log_probs(net, scored))  # nothing to fit on: the first window has no context
            else:
                head = net.embedding.detach().float()
                shift, bias = fit_slot(*fitted, head, net.logit_cap, self)
                fitted_to = [w.stop if self.loss_on == "scored" else w.scored for w in batch]
                tally.add(firsts, slot_log_probs(scored, head, net.logit_cap, shift, bias), fitted_to)


@torch.no_grad()
def fit_slot(
    hidden_BRD: Tensor, targets_BR: Tensor, head_VD: Tensor, cap: float, config: Slot
) -> tuple[Tensor, Tensor]:
    """Fit each window of a batch on its R loss rows; the shift (B, D) and the bias (B, V), both float32.

    hidden (B, R, D) are final-normed states, targets (B, R), head (V, D), ``cap`` the soft cap of the logits.
    """
    B, R, D = hidden_BRD.shape
    fitted = torch.zeros(B, D + head_VD.shape[0], device=hidden_BRD.device)
    # Windows don't touch each other, so each takes all its steps while its logits are still in the cache.
    block = B if hidden_BRD.is_cuda else 1
    for i in range(0, B, block):
        part = slice(i, i + block)
        fit_block(hidden_BRD[part], targets_BR[part], head_VD, cap, config, B * R, fitted[part])
    return fitted[:, :D], fitted[:, D:]


def fit_block(
    hidden_BRD: Tensor,
    targets_BR: Tensor,
    head_VD: Tensor,
    cap: float,
    config: Slot,
    loss_rows: int,
    fitted_BP: Tensor,
) -> None:
    """All steps of a block of windows, in place on ``fitted_BP``: shift and bias side by side, P = D + V, zero first.

    ``loss_rows`` is N, the loss positions of the whole batch, by which the field divides the gradient.
    """
    D = hidden_BRD.shape[2]
    over_cap_DV = head_VD.mT / cap
    z_BRV = hidden_BRD @ over_cap_DV
    t, e = torch.empty_like(z_BRV), torch.empty_like(z_BRV)
    index = targets_BR[:, :, None]
    shift, bias = fitted_BP[:, :D], fitted_BP[:, D:]
    grad, mean, square = (torch.zeros_like(fitted_BP) for _ in range(3))
    for step in range(config.steps):
        rate = config.lr_min + 0.5 * (config.lr - config.lr_min) * (1 + math.cos(math.pi * step / config.steps))
        offset = torch.addmm(bias / cap, shift, over_cap_DV)
        torch.add(z_BRV, offset[:, None], out=t).tanh_()
        at_target = t.gather(2, index).squeeze(2).square_().sub_(1)  # -(1 - t^2) of each target
        torch.mul(t, cap, out=e)
        if cap > LARGEST_SAFE_CAP:
            e.sub_(e.amax(-1, keepdim=True))
        weight = e.exp_().sum(-1).reciprocal_()
        e.addcmul_(e, t.square_(), value=-1)  # exp(c t) (1 - t^2); the row's 1 / sum comes with the product
        grad_bias = torch.bmm(weight[:, None], e).squeeze(1).scatter_add_(1, targets_BR, at_target).div_(loss_rows)
        grad[:, D:] = grad_bias
        torch.mm(grad_bias, head_VD, out=grad[:, :D])
        adamw_(fitted_BP, mean, square, grad, rate, step + 1, config)


def adamw_(w: Tensor, mean: Tensor, square: Tensor, grad: Tensor, rate: float, step: int, config: Slot) -> None:
    """One AdamW update in place (Loshchilov & Hutter 2019), as torch.optim.AdamW computes it."""
    w.mul_(1 - rate * config.weight_decay)
    mean.lerp_(grad, 1 - config.beta1)
    square.mul_(config.beta2).addcmul_(grad, grad, value=1 - config.beta2)
    denominator = (square / (1 - config.beta2**step)).sqrt_().add_(config.eps)
    w.addcdiv_(mean, denominator, value=-rate / (1 - config.beta1**step))


@torch.no_grad()
def slot_log_probs(hidden_BSD: Tensor, head_VD: Tensor, cap: float, shift_BD: Tensor, bias_BV: Tensor) -> Tensor:
    """Log-probabilities (B, S, V) with the fitted shift and bias; the bias goes in before the soft cap."""
    rows = zip(hidden_BSD, shift_BD, bias_BV, strict=True)  # by window, for the cache
    raw = (torch.addmm(bias, hidden + shift, head_VD.mT) for hidden, shift, bias in rows)
    return torch.stack([logits.div_(cap).tanh_().mul_(cap).log_softmax(-1) for logits in raw])
