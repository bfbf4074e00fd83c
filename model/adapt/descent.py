"""Gradient steps on sequences of the validation stream: the part that all ways to adapt the weights share.

A step's sequences are split over the ranks, and its gradient is the mean over all of them, each weighted alike whatever
its rank got. So any world takes the same steps, up to the rounding of sums.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from model.adapt.rule import Rule
from model.gang import Gang
from model.net.attention import whole_graph
from model.net.gpt import GPT
from model.score.stream import Stream, window_rows
from model.score.windows import Window


def whole_sequences(first: int, stop: int, length: int) -> list[Window]:
    """The sequences of ``length`` targets in [first, stop), end to end; a tail shorter than that is not trained on, as
    in the field (openai/parameter-golf #549)."""
    starts = range(first, stop - length + 1, length)
    return [Window(start=start, scored=start, stop=start + length) for start in starts]


@contextlib.contextmanager
def gradients_for(net: GPT, wanted: Callable[[str], bool]) -> Iterator[list[torch.nn.Parameter]]:
    """Only parameters whose name is ``wanted`` ask for a gradient; afterwards every flag is as it was."""
    before = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(wanted(name))
        yield [parameter for parameter in net.parameters() if parameter.requires_grad]
    finally:
        for parameter, asked in before:
            parameter.requires_grad_(asked)


@contextlib.contextmanager
def trainable(net: GPT, freeze_blocks: int) -> Iterator[list[torch.nn.Parameter]]:
    """The weights that may change, while all others ask for no gradient.

    Above 0, ``freeze_blocks`` freezes the first so many blocks and the embedding below them, which is the head as well.

    Raises:
        ValueError: no block is left to train.
    """
    if freeze_blocks >= len(net.blocks):
        raise ValueError(f"freeze_blocks is {freeze_blocks}, but the network has {len(net.blocks)} blocks")
    frozen = ("embedding", *(f"blocks.{layer}." for layer in range(freeze_blocks))) if freeze_blocks else ()
    with gradients_for(net, lambda name: not name.startswith(frozen)) as parameters:
        yield parameters


class Descent:
    """An optimiser over the weights that may change, and what a step takes."""

    def __init__(
        self,
        net: GPT,
        stream: Stream,
        parameters: list[torch.nn.Parameter],
        rule: Rule,
        gang: Gang,
        *,
        batch_seqs: int,
        micro_seqs: int,
        grad_clip: float,
    ) -> None:
        """``batch_seqs`` make a step over all ranks, ``micro_seqs`` a forward on one; ``grad_clip`` 0 is off."""
        self.stream, self.parameters, self.gang = stream, parameters, gang
        self.batch_seqs, self.micro_seqs, self.grad_clip = batch_seqs, micro_seqs, grad_clip
        self.optimiser = rule.optimiser(parameters)
        cuda = gang.device.type == "cuda"
        self.loss_of = whole_graph(net.loss) if cuda else net.loss

    def epoch(self, sequences: Sequence[Window], rate: float) -> Tensor:
        """One pass over ``sequences`` in their order, at learning rate ``rate``.

        Returns:
            This rank's part of the mean loss (nats per token); the sum over ranks is the mean.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.gang.device)
        for i in range(0, len(sequences), self.batch_seqs):
            batch = sequences[i : i + self.batch_seqs]
            total += self._step(batch) * (len(batch) / len(sequences))
        return total

    def _step(self, batch: Sequence[Window]) -> Tensor:
        """One update; this rank's part of the mean loss of ``batch``."""
        self.gang.beat()
        rank, world = self.gang.rank, self.gang.world
        own = batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]
        total = torch.zeros((), device=self.gang.device)
        for i in range(0, len(own), self.micro_seqs):
            micro = list(own[i : i + self.micro_seqs])
            inputs, targets = window_rows(self.stream, micro, self.gang.device)
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs.is_cuda):
                loss = self.loss_of(inputs, targets) * (len(micro) / len(batch))
            loss.backward()
            total += loss.detach()
        self._sum_gradients()
        if self.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total

    def _sum_gradients(self) -> None:
        """Gradients over all ranks, as one flat buffer; a rank that had no sequence adds zeros."""
        if self.gang.world == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        flat = self.gang.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def summed_losses(losses: Sequence[Tensor], gang: Gang) -> list[float]:
    """The mean loss of each epoch, the same on every rank, from every rank's part of it."""
    return gang.sum_(torch.stack(list(losses))).tolist()
