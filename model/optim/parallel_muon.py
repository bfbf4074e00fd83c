"""Parallel Muon: each rank orthogonalises its share of the matrices (openai/parameter-golf #399, #549, #1135).

Matrices of one shape are a bank. After the backward pass a bank's gradients are reduce-scattered, so that a rank has
the mean of its part alone; it keeps the momentum of that part, puts it through one batched Newton-Schulz, and the
updates are gathered. That takes the same traffic as an all-reduce and 1/W of the work, and gives what
:mod:`model.optim.muon` gives, to rounding: here the gradient is clipped by its global norm, whereas the field clips
each rank's own before the sum, and momentum stays float32, whereas the field's is bf16.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.gang import Gang
from model.optim.groups import Optimisers
from model.optim.muon import Muon, move


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelMuon:
    """In the place of the simple one, in which every rank does everything."""

    def optimisers(self, matrices: list[Tensor], adam: torch.optim.AdamW, **options: Any) -> Optimisers:
        """Both, over a gang that ``average`` is told."""
        return ParallelOptimisers(muon=BankedMuon(matrices, **options), adam=adam)


class Bank:
    """Matrices of one shape: the mean gradient of this rank's part, and its momentum."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.part: Tensor | None = None
        self.momentum: Tensor | None = None
        self.sent: Any = None

    def send(self, gang: Gang) -> None:
        """Begin to sum the gradients up, as many matrices to each rank; what is missing at the end is zero."""
        gradients = torch.stack([w.grad for w in self.weights if w.grad is not None])
        assert len(gradients) == len(self.weights)
        share = -(-len(gradients) // gang.world)
        if gang.world == 1:
            self.part = gradients
            return
        padding = gradients.new_zeros(share * gang.world - len(gradients), *gradients.shape[1:])
        self.part = gradients.new_empty(share, *gradients.shape[1:])
        self.sent = dist.reduce_scatter_tensor(self.part, torch.cat((gradients, padding)), async_op=True)

    def receive(self, gang: Gang) -> Tensor:
        """The mean gradient of this rank's part."""
        assert self.part is not None
        if self.sent is not None:
            self.sent.wait()
            self.part /= gang.world
            self.sent = None
        return self.part


class BankedMuon(Muon):
    """Muon whose state lies with the ranks."""

    def __init__(self, matrices: Iterable[Tensor], **options: Any) -> None:
        super().__init__(matrices, **options)
        ordered = self.param_groups[0]["params"]
        self.banks = [Bank(list(same)) for _, same in groupby(ordered, key=lambda w: tuple(w.shape))]
        self.gang = Gang()

    def reduce(self, gang: Gang) -> None:
        """Begin with the largest bank; the parts are there once they are received."""
        self.gang = gang
        for bank in sorted(self.banks, key=lambda bank: -sum(w.numel() for w in bank.weights)):
            bank.send(gang)

    def received(self) -> list[Tensor]:
        """The mean gradients of this rank's share, after :meth:`reduce`."""
        return [bank.receive(self.gang) for bank in self.banks]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all weights, from this rank's share of the work and the others'."""
        group = self.param_groups[0]
        for bank in self.banks:
            gradient = bank.receive(self.gang)
            if bank.momentum is None:
                bank.momentum = torch.zeros_like(gradient)
            bank.momentum.mul_(group["momentum"]).add_(gradient)
            ahead = gradient + group["momentum"] * bank.momentum if self.nesterov else bank.momentum
            updates = self.updates(ahead).contiguous()
            if self.gang.world > 1:
                gathered = updates.new_empty(len(updates) * self.gang.world, *updates.shape[1:])
                dist.all_gather_into_tensor(gathered, updates)
                updates = gathered
            move(bank.weights, updates[: len(bank.weights)], group["lr"], group["weight_decay"])


class ParallelOptimisers(Optimisers):
    """Matrices' gradients are summed up by part; all others' as ever."""

    muon: BankedMuon

    def average(self, parameters: list[torch.nn.Parameter], gang: Gang, clip: float) -> None:
        """As Optimisers', but a matrix's mean gradient is only known to the rank that needs it."""
        banked = {id(weight) for group in self.muon.param_groups for weight in group["params"]}
        others = [parameter for parameter in parameters if id(parameter) not in banked]
        self.muon.reduce(gang)
        gang.average_gradients(others)
        if not clip:
            return
        parts = self.muon.received()
        own = torch.stack([part.float().square().sum() for part in parts]).sum()
        rest = [parameter.grad for parameter in others if parameter.grad is not None]
        squares = gang.sum_(own) + torch.stack([gradient.float().square().sum() for gradient in rest]).sum()
        torch._foreach_mul_([*parts, *rest], (clip / (squares.sqrt() + 1e-6)).clamp(max=1.0))
