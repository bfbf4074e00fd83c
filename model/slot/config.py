"""What the field's SLOT variants differ in: which parameters, shared by whom, fitted how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.overlay import check_finite_fields

LARGEST_SAFE_CAP = 80.0
"""Up to here exp of a capped logit fits float32, and softmax needs no pass for the row's maximum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a shift of the hidden states and a bias on the logits are fitted. Defaults: openai/parameter-golf #1303."""

    shift: bool = True
    """Fit d (D), added to the final-normed hidden states (Hu et al. 2025, arXiv:2505.12392)."""
    bias: bool = True
    """Fit b (V), added to the logits before the soft cap (#1229). #1128, #1176 and #1306 have none."""
    per: Literal["window", "batch"] = "window"
    """Who shares the parameters: nobody (#1229, #1303, #1488), or the whole batch of windows (#1128, #1176, #1306)."""
    optimiser: Literal["adamw", "lbfgs"] = "adamw"
    """L-BFGS with strong Wolfe line search is #1350's; then ``lr`` is its first step, ``steps`` its iterations, and
    AdamW's own fields (schedule, lr_min, betas, eps, weight decay) have no say."""
    steps: int = 16
    lr: float = 0.008
    schedule: Literal["cosine", "constant"] = "cosine"
    """AdamW's rate: lr_t = lr_min + (lr - lr_min) (1 + cos(pi t / steps)) / 2, or ``lr`` throughout."""
    lr_min: float = 0.0008
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-5
    weight_decay: float = 1e-8
    history: int = 20
    """Pairs that L-BFGS remembers."""
    clamp: float = 0.0
    """Above 0: fitted parameters are cut to [-clamp, clamp] at the end (#1350: 5)."""
    warm_start: float = 0.0
    """Start from this multiple of the fit of eight batches before and not from zero. In the field it is the batch just
    before on the same rank (#1319: 0.85, #1350: 1), and the score depends on how many ranks there are."""
    loss_scale: Literal["batch", "window"] = "batch"
    """What the gradient is divided by: the loss rows of the batch, as the field does, or of the window. AdamW's eps is
    not scale-free, so with ``batch`` the score depends on ``score.windows.batch_seqs``."""

    def __post_init__(self) -> None:
        check_finite_fields(self, "score.slot")
        choices = {"per": ("window", "batch"), "optimiser": ("adamw", "lbfgs"), "schedule": ("cosine", "constant")}
        for name, known in (choices | {"loss_scale": ("batch", "window")}).items():
            if getattr(self, name) not in known:
                raise ValueError(f"score.slot.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not self.shift and not self.bias:
            raise ValueError("score.slot: with shift=False and bias=False there is nothing to fit; turn one on")
        if self.steps < 0 or self.history < 1:
            raise ValueError(
                f"score.slot.steps must be 0 or more and history 1 or more, got {self.steps}, {self.history}"
            )
        if not self.lr > 0 or not self.eps > 0:
            raise ValueError(f"score.slot: lr and eps must be above 0, got {self.lr}, {self.eps}")
        if min(self.lr_min, self.weight_decay, self.clamp, self.warm_start) < 0:
            raise ValueError(
                f"score.slot: lr_min, weight_decay, clamp and warm_start must be 0 or more, "
                f"got {self.lr_min}, {self.weight_decay}, {self.clamp}, {self.warm_start}"
            )
        if not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise ValueError(f"score.slot: betas must be in [0, 1), got {self.beta1}, {self.beta2}")
