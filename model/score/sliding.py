"""Sliding evaluation: every token with at least T - S tokens of context, the field's honest score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.stream import Stream, window_rows
from model.score.windows import WindowConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Sliding:
    """Sliding has no knobs of its own; the windows are shared with every other scorer."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Write the loss of every target of ``stream`` to ``tally``."""
        for batch in windows.batches(stream.targets, gang):
            inputs, targets = window_rows(stream, batch, gang.device)
            context = batch[0].context
            nats = token_nats(net, hidden_states(net, inputs)[:, context:], targets[:, context:])
            for window, row in zip(batch, nats, strict=True):
                tally.add(window.scored, row)


CPU_BLOCK_TOKENS = 2048
"""Tokens of one forward on a CPU: activations of more don't stay in its cache, which costs 1.5x the time."""


@torch.no_grad()
def hidden_states(net: GPT, inputs_BT: Tensor) -> Tensor:
    """The frozen network's output (B, T, D), float32; bf16 inside on CUDA."""
    B, T = inputs_BT.shape
    rows = B if inputs_BT.is_cuda else max(1, CPU_BLOCK_TOKENS // T)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs_BT.is_cuda):
        return torch.cat([net.hidden(block).float() for block in inputs_BT.split(rows)])


@torch.no_grad()
def token_nats(net: GPT, hidden_BSD: Tensor, targets_BS: Tensor) -> Tensor:
    """Cross-entropy (B, S) of each target in nats; no row that isn't asked for gets logits."""
    pairs = zip(hidden_BSD, targets_BS, strict=True)  # by window: its logits stay in a CPU's cache
    return torch.stack([F.cross_entropy(net.logits(hidden), targets, reduction="none") for hidden, targets in pairs])
