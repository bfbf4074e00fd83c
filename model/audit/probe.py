"""A tally that keeps every distribution it is given, or compares each with the one of an earlier pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.audit.rules import UNBOUNDED
from model.gang import Gang
from model.score.bpb import Tally
from model.score.stream import Stream

KEPT = 2
"""Distributions kept of a token that is scored again and again."""


class Probe(Tally):
    """One pass over n targets and V tokens. Without ``base`` it keeps what it gets, with it ``changes`` is filled."""

    def __init__(
        self, stream: Stream, bytes_per_target: NDArray[np.int64], vocab_size: int, base: Probe | None = None
    ) -> None:
        super().__init__(stream, bytes_per_target, Gang())
        n = stream.targets
        self._stream, self._tokens = stream, stream.tokens.copy()
        self.vocab_size, self.base = vocab_size, base
        self.seen = np.zeros(n, dtype=np.int64)
        """How often each target was scored."""
        self.tables: list[Tensor] = []
        """The k-th distribution (n, V) of each target."""
        self.changes = np.zeros(n)
        """Largest change of a log-probability of each target's distribution against ``base``."""
        self.batch_of, self.window_of = np.full(n, -1), np.full(n, -1)
        """In which call, and as which of its windows, a target was scored first."""
        self.calls = self.distributions = self.not_numbers = 0
        self.narrowest, self.widest = vocab_size, vocab_size
        self.largest_log_sum = 0.0
        self.losses = torch.zeros(n, dtype=torch.float64)
        self.arrays_changed = 0
        """How many of tokens, targets and counts were not left as they were: a scorer can reach into all of them."""

    def add(self, firsts: Sequence[int], log_probs_BSV: Tensor, fitted_to: Sequence[int] | None = None) -> None:
        """As :class:`Tally`, which still gets everything."""
        whole_BSV = self._whole(log_probs_BSV.detach())
        for window, (first, rows_SV) in enumerate(zip(firsts, whole_BSV, strict=True)):
            targets = np.arange(first, first + len(rows_SV))
            new = targets[self.seen[targets] == 0]
            self.batch_of[new], self.window_of[new] = self.calls, window
            if self.base is None:
                self._keep(targets, rows_SV)
            else:
                self._compare(self.base, targets, rows_SV)
            self.seen[targets] += 1
        self.calls += 1
        super().add(firsts, whole_BSV, fitted_to)

    def finish(self) -> None:
        """After a pass: a target that was scored more or less often than in ``base`` has changed, too."""
        self.arrays_changed = sum(
            not np.array_equal(theirs, own)
            for theirs, own in (
                (self._stream.tokens, self._tokens),
                (self.targets, self._tokens[1:]),
                (self.times.cpu().numpy(), self.seen),
            )
        )
        if self.base is not None:
            self.changes[self.seen != self.base.seen] = UNBOUNDED

    def _whole(self, log_probs_BSV: Tensor) -> Tensor:
        """The same over exactly V tokens; the width it had is noted."""
        width = log_probs_BSV.shape[-1]
        self.narrowest, self.widest = min(self.narrowest, width), max(self.widest, width)
        if width < self.vocab_size:
            missing = log_probs_BSV.new_full((*log_probs_BSV.shape[:-1], self.vocab_size - width), -torch.inf)
            return torch.cat([log_probs_BSV, missing], -1)
        return log_probs_BSV[..., : self.vocab_size]

    def _keep(self, targets: NDArray[np.int64], rows_SV: Tensor) -> None:
        self.distributions += len(targets)
        sums = rows_SV.double().logsumexp(-1)
        bad = ~torch.isfinite(sums) | torch.isnan(rows_SV).any(-1)
        self.not_numbers += int(bad.sum())
        if not bad.all():
            self.largest_log_sum = max(self.largest_log_sum, float(sums[~bad].abs().max()))
        ids = torch.from_numpy(self._tokens[1:][targets].astype(np.int64))
        self.losses[targets] -= rows_SV.gather(1, ids[:, None]).squeeze(1).double()
        for k in range(KEPT):
            now = self.seen[targets] == k
            if now.any():
                if k == len(self.tables):
                    self.tables.append(torch.zeros(len(self.seen), self.vocab_size))
                self.tables[k][targets[now]] = rows_SV[torch.from_numpy(now)].float()

    def _compare(self, base: Probe, targets: NDArray[np.int64], rows_SV: Tensor) -> None:
        if not self.seen[targets].any() and torch.equal(base.tables[0][targets[0] : targets[-1] + 1], rows_SV):
            return  # the common case, without a copy
        for k, table in enumerate(base.tables):
            now = (self.seen[targets] == k) & (base.seen[targets] > k)
            if now.any():
                changes = largest_change(table[targets[now]], rows_SV[torch.from_numpy(now)].float())
                self.changes[targets[now]] = np.maximum(self.changes[targets[now]], changes)


def largest_change(before_SV: Tensor, after_SV: Tensor) -> NDArray[np.float64]:
    """Per row (S,), the largest difference of two log-probabilities; what isn't a number differs without bound."""
    if torch.equal(before_SV, after_SV):
        return np.zeros(len(before_SV))
    difference = torch.where(before_SV == after_SV, 0.0, (before_SV - after_SV).abs())
    largest: NDArray[np.float64] = difference.nan_to_num(nan=UNBOUNDED, posinf=UNBOUNDED).amax(-1).double().numpy()
    return np.minimum(largest, UNBOUNDED)
