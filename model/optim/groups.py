"""Which parameter is trained by what: matrices by Muon, the embedding and everything small by AdamW."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from model.optim.muon import Muon


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Defaults of openai/parameter-golf #1303 (MATRIX_LR, TIED_EMBED_LR, SCALAR_LR, MUON_*, ADAM_WD, BETA1, BETA2)."""

    matrix_lr: float = 0.025
    embed_lr: float = 0.035
    scalar_lr: float = 0.025
    muon_momentum: float = 0.99
    muon_momentum_start: float = 0.92
    muon_momentum_warmup_steps: int = 1500
    muon_wd: float = 0.04
    adam_wd: float = 0.04
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("matrix_lr", "embed_lr", "scalar_lr", "adam_eps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"optim.{name} must be above 0, got {getattr(self, name)}")
        for name in ("muon_momentum", "muon_momentum_start", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.muon_wd < 0 or self.adam_wd < 0 or self.muon_momentum_warmup_steps < 0:
            raise ValueError(
                f"optim: muon_wd, adam_wd and muon_momentum_warmup_steps must be 0 or more, "
                f"got {self.muon_wd}, {self.adam_wd}, {self.muon_momentum_warmup_steps}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimisers:
    """The two that step together; every group remembers its own peak learning rate."""

    muon: Muon
    adam: torch.optim.AdamW

    def set_rates(self, scale: float, momentum: float) -> None:
        """Scale every learning rate from its peak and set Muon's momentum."""
        for group in (*self.muon.param_groups, *self.adam.param_groups):
            group["lr"] = group["peak_lr"] * scale
        for group in self.muon.param_groups:
            group["momentum"] = momentum

    def step(self) -> None:
        """One update of every parameter; gradients are dropped."""
        for optimiser in (self.muon, self.adam):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def build_optimisers(net: nn.Module, config: OptimConfig) -> Optimisers:
    """Route every parameter of ``net`` to exactly one group.

    Block matrices (two dims, below ``blocks``, not the (2, D) residual mix) go to Muon, the rest to AdamW.
    """
    matrices, embedding, scalars = [], [], []
    for name, parameter in net.named_parameters():
        if name == "embedding":
            embedding.append(parameter)
        elif name.startswith("blocks.") and name.endswith(".weight"):
            matrices.append(parameter)
        else:
            scalars.append(parameter)
    assert len(matrices) + len(embedding) + len(scalars) == len(list(net.parameters()))
    muon = Muon(matrices, lr=config.matrix_lr, momentum=config.muon_momentum, weight_decay=config.muon_wd)
    adam = torch.optim.AdamW(
        [
            {"params": embedding, "lr": config.embed_lr},
            {"params": scalars, "lr": config.scalar_lr},
        ],
        betas=(config.beta1, config.beta2),
        eps=config.adam_eps,
        weight_decay=config.adam_wd,
        fused=True,
    )
    for group in (*muon.param_groups, *adam.param_groups):
        group["peak_lr"] = group["lr"]
    return Optimisers(muon=muon, adam=adam)
