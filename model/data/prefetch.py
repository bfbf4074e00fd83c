"""Batches made one step ahead by a thread, so that the loop never waits for the disk; on CUDA from pinned memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from model.data.batches import Batches, halves

BatchAt = Callable[[int], tuple[Tensor, Tensor]]
"""Inputs and targets (B/W, T) of a step, on the gang's device."""


@contextlib.contextmanager
def prefetched(batches: Batches, device: torch.device) -> Iterator[BatchAt]:
    """``batches`` on ``device``: while a step is computed, the rows of the next are read by a thread.

    Steps may be asked for in any order; only the next one is at hand at once. What goes wrong in the thread is raised
    where its batch is asked for. The thread has ended when the block is left, however it is left.
    """
    cuda = device.type == "cuda"

    def prepare(step: int) -> Tensor:
        block = batches.block(step)
        return block.pin_memory() if cuda else block

    def begin() -> None:
        if cuda:
            torch.cuda.set_device(device)  # else pinning would open the first GPU in every rank

    with ThreadPoolExecutor(1, "batches", begin) as thread:
        ahead: dict[int, Future[Tensor]] = {}

        def batch_at(step: int) -> tuple[Tensor, Tensor]:
            block = (ahead.pop(step, None) or thread.submit(prepare, step)).result()
            for other in ahead.values():
                other.cancel()
            ahead.clear()
            ahead[step + 1] = thread.submit(prepare, step + 1)
            return halves(block.to(device, non_blocking=True))

        yield batch_at
