"""Sliding evaluation: every token with at least T - S tokens of context, the field's honest score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
        """Predict every target of ``stream`` into ``tally``."""
        for batch in windows.batches(stream.targets, gang):
            inputs, _ = window_rows(stream, batch, gang.device)
            tally.add([w.scored for w in batch], log_probs(net, hidden_states(net, inputs, batch[0].context)))


CPU_BLOCK_TOKENS = 2048
"""Tokens of one forward on a CPU: activations of more don't stay in its cache, which costs 1.5x the time."""


@torch.no_grad()
def hidden_states(net: GPT, inputs_BT: Tensor, first_row: int = 0) -> Tensor:
    """The frozen network's output (B, T - first_row, D), float32; bf16 inside on CUDA."""
    B, T = inputs_BT.shape
    rows = B if inputs_BT.is_cuda else max(1, CPU_BLOCK_TOKENS // T)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs_BT.is_cuda):
        return torch.cat([net.hidden(block, first_row).float() for block in inputs_BT.split(rows)])


@torch.no_grad()
def log_probs(net: GPT, hidden_BSD: Tensor) -> Tensor:
    """Log-probabilities (B, S, V) of each row's next token; no row that isn't asked for gets logits."""
    # By window: its logits stay in a CPU's cache.
    return torch.stack([net.logits(hidden_SD).log_softmax(-1) for hidden_SD in hidden_BSD])
