"""How a long procedure is shortened for an audit: the same steps in the same order, of a size that fits two batches.

A chunk of TTT has 32,768 tokens and a warm start skips eight batches; on that many tokens an audit would take minutes
and see no other order of scoring and learning. What was changed is written into ``audit.json``.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from model.score.windows import WindowConfig

LANES_OF_WARM_START = 8
"""Batches from a fit to the one that starts from it (``model.score.slot``)."""
EPOCHS = 2


def scaled(scorer: Any, windows: WindowConfig) -> tuple[Any, WindowConfig, int, dict[str, int]]:
    """The scorer and windows to audit, how many batches of them it takes, and what was changed."""
    changes: dict[str, int] = {}
    scorer = _shorter(scorer, max(windows.seq_len, windows.batch_seqs * windows.stride), changes)
    batches = 2
    if getattr(scorer, "warm_start", 0):
        # So many batches, of fewer windows, cost what two whole ones do.
        batches = LANES_OF_WARM_START + 1
        windows = replace(windows, batch_seqs=min(windows.batch_seqs, max(2, -(-2 * windows.batch_seqs // batches))))
        changes["batch_seqs"] = windows.batch_seqs
    return scorer, windows, batches, changes


def fewer_epochs(adapter: Any, changes: dict[str, int]) -> Any:
    """``adapter`` with at most :data:`EPOCHS`; a first look at a token is what counts."""
    if getattr(adapter, "epochs", 0) > EPOCHS:
        changes["prequant_epochs"] = EPOCHS
        return replace(adapter, epochs=EPOCHS)
    return adapter


def _shorter(config: Any, chunk_tokens: int, changes: dict[str, int]) -> Any:
    """``config`` with chunks of at most ``chunk_tokens``, also in the scorers inside it."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    new: dict[str, Any] = {}
    for field in fields(config):
        old = getattr(config, field.name)
        if field.name == "chunk_tokens" and old > chunk_tokens:
            new[field.name] = changes["chunk_tokens"] = chunk_tokens
        elif (changed := _shorter(old, chunk_tokens, changes)) is not old:
            new[field.name] = changed
    return replace(config, **new) if new else config
