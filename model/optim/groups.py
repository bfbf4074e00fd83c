"""Which parameter is trained by what: matrices by Muon, tables and everything small by AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from model.gang import Gang
from model.optim.muon import Muon, orthogonalise


@runtime_checkable
class Orthogonaliser(Protocol):
    """Another way than Newton-Schulz to move the singular values of matrices (N, O, I) to about 1."""

    def check(self, iterations: int) -> None: ...
    def orthogonal(self, g_NOI: Tensor, iterations: int) -> Tensor: ...


@runtime_checkable
class MuonSharing(Protocol):
    """Another way to share Muon's work than that every rank does everything; ``options`` are Muon's."""

    def optimisers(self, matrices: list[Tensor], adam: torch.optim.AdamW, **options: Any) -> Optimisers: ...


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
    muon_nesterov: bool = True
    muon_row_normalize: bool = False
    """MuonEq-R (#1217, #1394)."""
    muon_steps: int = 5
    """Iterations to orthogonality (MUON_BACKEND_STEPS)."""
    orthogonaliser: Orthogonaliser | None = None
    """None is Newton-Schulz."""
    sharing: MuonSharing | None = None
    """None: every rank does everything."""
    projections: Literal["muon", "adamw"] = "muon"
    """What trains the matrices that bring tables to the network's width: Muon in #1303, AdamW with the scalars in
    #1176."""
    head_lr: float = 0.008
    """Of a head that isn't the embedding; it has no weight decay (HEAD_LR)."""
    adam_wd: float = 0.04
    embed_wd: float | None = None
    """Of embedding and tables (EMBED_WD); None is ``adam_wd``."""
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("matrix_lr", "embed_lr", "scalar_lr", "head_lr", "adam_eps"):
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
        if self.embed_wd is not None and self.embed_wd < 0:
            raise ValueError(f"optim.embed_wd must be 0 or more, or none, got {self.embed_wd}")
        if self.muon_steps < 1 or self.projections not in ("muon", "adamw"):
            raise ValueError(
                f"optim.muon_steps must be 1 or more and optim.projections muon or adamw, "
                f"got {self.muon_steps} and {self.projections!r}"
            )
        if self.orthogonaliser is not None:
            self.orthogonaliser.check(self.muon_steps)

    def muon_options(self) -> dict[str, Any]:
        """What Muon is built with, beside its matrices."""
        other = self.orthogonaliser
        return {
            "lr": self.matrix_lr,
            "momentum": self.muon_momentum,
            "weight_decay": self.muon_wd,
            "nesterov": self.muon_nesterov,
            "row_normalize": self.muon_row_normalize,
            "to_orthogonal": partial(orthogonalise if other is None else other.orthogonal, iterations=self.muon_steps),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimisers:
    """The two that step together; every group remembers its own peak learning rate."""

    muon: Muon
    adam: torch.optim.AdamW

    def average(self, parameters: list[nn.Parameter], gang: Gang, clip: float) -> None:
        """Mean gradients over ranks, together no longer than ``clip``; 0 doesn't clip."""
        gang.average_gradients(parameters)
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)

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

    The matrices of blocks go to Muon, and those of tables' projections where the config says so; the rest to AdamW.
    """
    routed = route(net, config)
    embed_wd = config.adam_wd if config.embed_wd is None else config.embed_wd
    groups: list[dict[str, Any]] = [
        {"params": routed["tables"], "lr": config.embed_lr, "weight_decay": embed_wd},
        {"params": routed["scalars"], "lr": config.scalar_lr},
    ]
    if routed["head"]:
        groups.append({"params": routed["head"], "lr": config.head_lr, "weight_decay": 0.0})
    adam = torch.optim.AdamW(
        groups,
        betas=(config.beta1, config.beta2),
        eps=config.adam_eps,
        weight_decay=config.adam_wd,
        fused=True,
    )
    if config.sharing is None:
        optimisers = Optimisers(muon=Muon(routed["matrices"], **config.muon_options()), adam=adam)
    else:
        optimisers = config.sharing.optimisers(routed["matrices"], adam, **config.muon_options())
    for group in (*optimisers.muon.param_groups, *adam.param_groups):
        group["peak_lr"] = group["lr"]
    return optimisers


def route(net: nn.Module, config: OptimConfig) -> dict[str, list[Tensor]]:
    """Every parameter by what trains it."""
    routed: dict[str, list[Tensor]] = {"matrices": [], "tables": [], "scalars": [], "head": []}
    for name, parameter in net.named_parameters():
        if name == "embedding" or name.endswith(".table"):
            kind = "tables"
        elif name == "head.weight":
            kind = "head"
        elif name.endswith(".weight") and (name.startswith("blocks.") or config.projections == "muon"):
            kind = "matrices"
        else:
            kind = "scalars"
        routed[kind].append(parameter)
    return routed
