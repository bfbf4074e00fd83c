"""AdamW on the validation stream before packing (openai/parameter-golf #1364, #1423, #1488): **not legal**.

It trains, for several epochs, on validation tokens that nothing has scored, so whatever scores the artifact afterwards
has seen its targets: adapt-then-score over the validation stream is training on it (#402, #1902). It is here to measure
by how much that flatters (0.022 to 0.034 bits per byte in the field). The stage notes what it trained on, and every
score of the artifact reports those tokens as exposed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from model.adapt.adam import AdamRule
from model.adapt.descent import Descent, summed_losses, trainable, whole_sequences
from model.adapt.rule import Rule
from model.gang import Gang
from model.net.gpt import GPT
from model.overlay import check_finite_fields
from model.score.exposure import Exposure
from model.score.stream import Stream
from model.score.windows import WindowConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Prequant:
    """Defaults of openai/parameter-golf #1488."""

    lr: float = 0.00045
    lr_floor: float = 0.1
    """Where the cosine over the epochs would end, as a fraction of ``lr``."""
    epochs: int = 10
    seq_len: int = 0
    """Length of a sequence; 0 is that of training."""
    batch_seqs: int = 256
    """Sequences of one step over all ranks together: 32 on each of 8 in the field. The field's ranks take a contiguous
    part of the stream each; here a step's sequences are neighbours, so that any world takes the same steps."""
    micro_seqs: int = 32
    """Sequences of one forward on one rank."""
    freeze_blocks: int = 1
    """So many first blocks stay as they are, and with them the embedding, which is also the head; 0 trains all."""
    grad_clip: float = 1.0
    """Largest global gradient norm; 0 is off."""
    rule: Rule = AdamRule()

    def __post_init__(self) -> None:
        check_finite_fields(self, "adapt.prequant")
        for name in ("epochs", "seq_len", "freeze_blocks", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"adapt.prequant.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("batch_seqs", "micro_seqs"):
            if getattr(self, name) < 1:
                raise ValueError(f"adapt.prequant.{name} must be 1 or more, got {getattr(self, name)}")
        if self.lr <= 0 or not 0 <= self.lr_floor <= 1:
            raise ValueError(
                f"adapt.prequant.lr must be above 0 and adapt.prequant.lr_floor in [0, 1], "
                f"got {self.lr} and {self.lr_floor}"
            )

    def check(self, layers: int, windows: WindowConfig) -> None:
        """Refuse to freeze everything.

        Raises:
            ValueError: with both numbers.
        """
        if self.freeze_blocks >= layers:
            raise ValueError(
                f"adapt.prequant.freeze_blocks must be below net.layers={layers}, got {self.freeze_blocks}: "
                "nothing would be left to train"
            )

    def rate(self, epoch: int) -> float:
        """The learning rate of epoch ``epoch`` from 0: half a cosine from ``lr`` towards the floor, constant within an
        epoch (torch's CosineAnnealingLR over the epochs, as in #1423)."""
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.lr * (self.lr_floor + (1 - self.lr_floor) * cosine)

    def adapt(self, net: GPT, stream: Stream, train_seq_len: int, exposure: Exposure, gang: Gang) -> dict[str, float]:
        """Train ``net`` on ``stream`` in place.

        Returns:
            ``prequant_loss_nats``: mean loss of the last epoch while it ran; nothing without an epoch.

        Raises:
            ValueError: the stream is shorter than one sequence, or every block is frozen.
            FloatingPointError: the loss became NaN or infinite; the message has the epoch, from 1.
        """
        length = self.seq_len or train_seq_len
        sequences = whole_sequences(0, stream.targets, length)
        if not sequences:
            raise ValueError(f"{stream.targets} validation targets are fewer than one sequence of {length}")
        started, loss = time.perf_counter(), math.nan
        with trainable(net, self.freeze_blocks) as parameters:
            descent = Descent(
                net,
                stream,
                parameters,
                self.rule,
                gang,
                batch_seqs=self.batch_seqs,
                micro_seqs=self.micro_seqs,
                grad_clip=self.grad_clip,
            )
            for epoch in range(self.epochs):
                (loss,) = summed_losses([descent.epoch(sequences, self.rate(epoch))], gang)
                if not math.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss is {loss} in epoch {epoch + 1} of {self.epochs}: "
                        "lower adapt.prequant.lr or clip harder"
                    )
                elapsed_s = time.perf_counter() - started
                gang.log(f"prequant_ttt:epoch {epoch + 1}/{self.epochs} loss:{loss:.4f} time:{elapsed_s:.1f}s")
        if not self.epochs:
            return {}
        exposure.trained(0, sequences[-1].stop)
        return {"prequant_loss_nats": loss}
