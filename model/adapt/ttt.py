"""Test-time training by chunks, each scored before it is learned from (openai/parameter-golf #461, #549, #1413, #1493).

The stream is cut into chunks of ``chunk_tokens`` targets; a window belongs to the chunk of its first scored position.
Chunk after chunk: its windows are scored with the weights as they are, and then, but for the last chunk, the weights
take ``epochs`` passes over its sequences of ``score.windows.seq_len`` targets at the rate

    lr_c = lr (1 + cos(pi c / (C - 1))) / 2        of chunk c of C, from 0.

A window that begins in a chunk may reach into the next one; no later chunk is learned from for that. Sequences lie end
to end from the chunk's start, and a tail shorter than one is scored but not trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from model.adapt.descent import Descent, summed_losses, trainable, whole_sequences
from model.adapt.rule import Rule
from model.adapt.sgd import SgdRule
from model.gang import Gang
from model.net.gpt import GPT
from model.overlay import check_finite_fields
from model.score.bpb import Tally
from model.score.scorer import Scorer
from model.score.sliding import Sliding
from model.score.stream import Stream
from model.score.windows import WindowConfig

TTT_LINES = 20
"""How many chunks of a pass are logged, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ttt:
    """Defaults of openai/parameter-golf #1413 and #1493."""

    lr: float = 0.005
    """Of the first chunk; the last that is trained on is close to 0."""
    epochs: int = 3
    """Passes over each chunk; 0 is ``score_with`` alone."""
    chunk_tokens: int = 32_768
    batch_seqs: int = 32
    """Sequences of one step over all ranks together. TTT_BATCH_SEQS is of one rank, but there, too, the 16 sequences of
    a chunk are one step."""
    micro_seqs: int = 32
    """Sequences of one forward on one rank."""
    freeze_blocks: int = 0
    """So many first blocks stay as they are, and with them the embedding, which is also the head; 0 trains all.
    (#549 keeps training the embedding.)"""
    grad_clip: float = 1.0
    """Largest global gradient norm; 0 is off."""
    keep_weights: bool = False
    """Leave the network adapted. Who then scores the stream again does so with weights that were trained on it."""
    rule: Rule = SgdRule()
    score_with: Scorer = Sliding()
    """Scores the windows of each chunk with the weights of that moment. Batches end at the end of a chunk, which SLOT
    feels: the number of loss positions in a batch scales its steps."""

    def __post_init__(self) -> None:
        check_finite_fields(self, "score.ttt")
        for name in ("epochs", "freeze_blocks", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"score.ttt.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("chunk_tokens", "batch_seqs", "micro_seqs"):
            if getattr(self, name) < 1:
                raise ValueError(f"score.ttt.{name} must be 1 or more, got {getattr(self, name)}")
        if self.lr <= 0:
            raise ValueError(f"score.ttt.lr must be above 0, got {self.lr}")

    def check(self, layers: int, windows: WindowConfig) -> None:
        """Refuse what doesn't go with the network or the windows, before anything is trained.

        Raises:
            ValueError: every block is frozen, or a chunk has no room for one sequence.
        """
        if self.freeze_blocks >= layers:
            raise ValueError(
                f"score.ttt.freeze_blocks must be below net.layers={layers}, got {self.freeze_blocks}: "
                "nothing would be left to train"
            )
        if self.chunk_tokens < windows.seq_len:
            raise ValueError(
                f"score.ttt.chunk_tokens must be score.windows.seq_len={windows.seq_len} or more, "
                f"got {self.chunk_tokens}: a chunk trains on whole sequences"
            )

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Predict every target of ``stream`` into ``tally``, learning from each chunk once it is scored.

        Raises:
            ValueError: as :meth:`check`, or ``score_with`` scores something else than the windows of a chunk.
            FloatingPointError: the loss became NaN or infinite; the message has the chunk and the epoch, from 1.
        """
        self.check(len(net.blocks), windows)
        if self.epochs == 0:
            self.score_with.score_stream(net, stream, windows, tally, gang)
            return
        chunks = -(-stream.targets // self.chunk_tokens)
        before = {name: weight.clone() for name, weight in net.state_dict().items()}
        try:
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
                for chunk in range(chunks):
                    first, stop = chunk * self.chunk_tokens, (chunk + 1) * self.chunk_tokens
                    self._score(net, stream, windows.part(first, stop), tally, gang)
                    if chunk < chunks - 1:
                        self._learn(descent, chunk, chunks, windows.seq_len, tally)
        finally:
            if not self.keep_weights:
                net.load_state_dict(before)

    def _score(self, net: GPT, stream: Stream, part: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Score the windows of one chunk, these and no others."""
        due = sum(w.stop - w.scored for batch in part.batches(stream.targets, gang) for w in batch)
        before = tally.done
        self.score_with.score_stream(net, stream, part, tally, gang)
        if tally.done - before != due:
            raise ValueError(
                f"score.ttt.score_with={type(self.score_with).__name__} scored {tally.done - before} targets of a "
                f"chunk of {due}: it must score the windows it is given, as Sliding and Slot do"
            )

    def _learn(self, descent: Descent, chunk: int, chunks: int, seq_len: int, tally: Tally) -> None:
        """Train on chunk ``chunk`` of ``chunks``, which has been scored, and note it."""
        first = chunk * self.chunk_tokens
        sequences = whole_sequences(first, first + self.chunk_tokens, seq_len)
        rate = chunk_rate(self.lr, chunk, chunks)
        losses: list[Tensor] = [descent.epoch(sequences, rate) for _ in range(self.epochs)]
        tally.trained(first, sequences[-1].stop)
        means = summed_losses(losses, descent.gang)
        for epoch, loss in enumerate(means, 1):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the TTT loss is {loss} in chunk {chunk + 1} of {chunks}, epoch {epoch}: "
                    "lower score.ttt.lr or clip harder"
                )
        if (chunk + 1) % -(-chunks // TTT_LINES) == 0:
            descent.gang.log(f"ttt_chunk:{chunk + 1}/{chunks} lr:{rate:.6f} train_loss:{means[-1]:.4f}")


def chunk_rate(lr: float, chunk: int, chunks: int) -> float:
    """The learning rate after chunk ``chunk`` of ``chunks`` > 1: half a cosine from ``lr`` down to 0 at the last."""
    return lr * 0.5 * (1 + math.cos(math.pi * chunk / (chunks - 1)))
