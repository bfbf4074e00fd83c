"""The processes that train or score together: rank, world, device, and the few collectives that are used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def unheard(own_s: float | None = None) -> None:
    """A beat that nobody listens to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gang:
    """One rank's view; with world 1 every collective is the identity and no process group exists."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    transcript: Path | None = None
    """Takes the log instead of standard output, where one gang works for several stages."""
    beat: Callable[..., None] = unheard
    """Called with every step or batch, so that a watchdog sees that this rank gets on; with the stage's own clock in
    seconds where it has one. See :mod:`model.pulse`."""

    @property
    def chief(self) -> bool:
        """Whether this rank logs and writes files."""
        return self.rank == 0

    def log(self, line: str) -> None:
        """Print ``line`` once per gang, at once."""
        if not self.chief:
            return
        if self.transcript is None:
            print(line, flush=True)
        else:
            with open(self.transcript, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value``, on every rank, by rank."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def first(self, value: float) -> float:
        """Rank 0's ``value`` on every rank, so that all take the same decision."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(box, 0)
        return float(box.item())

    def barrier(self) -> None:
        """Wait for every rank."""
        self.first(0.0)

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Mean gradient over ranks, as one flat buffer."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch._utils._flatten_dense_tensors(gradients)
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
            gradient.copy_(mean)


@contextlib.contextmanager
def join_gang(device: str, threads: int, beat: Callable[..., None] = unheard) -> Iterator[Gang]:
    """The gang that torchrun's environment describes; a gang of one without it.

    Raises:
        ValueError: ``cuda`` is asked for and this process sees no GPU for its local rank.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    torch.set_num_threads(threads)
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(f"rank {rank} needs GPU {local}, but this process sees {torch.cuda.device_count()}")
        torch.cuda.set_device(local)
    place = torch.device(device, local) if device == "cuda" else torch.device(device)
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=10))
    gang = Gang(rank=rank, world=world, device=place, beat=beat)
    gang.beat()
    try:
        yield gang
        gang.barrier()  # nobody hangs up on a rank that still listens; a failed rank doesn't wait for the others
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
