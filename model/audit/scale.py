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
LONGEST_WINDOW = 4096
"""Tokens; a longer one takes minutes a pass and has no other edges."""
BATCH_TOKENS = 8192
"""Of all inputs of a batch: 32 windows of 256, or 4 of the 2,048 that the field has."""
FEWEST_WINDOWS = 3
"""Of a batch: an early, a middle and a late one."""


def scaled(scorer: Any, windows: WindowConfig) -> tuple[Any, WindowConfig, int, dict[str, int]]:
    """The scorer and windows to audit, how many batches of them it takes, and what was changed."""
    changes: dict[str, int] = {}
    if windows.seq_len > LONGEST_WINDOW:
        windows = replace(windows, seq_len=LONGEST_WINDOW, stride=min(windows.stride, LONGEST_WINDOW))
        changes["seq_len"] = windows.seq_len
    batch_seqs = min(windows.batch_seqs, max(FEWEST_WINDOWS, BATCH_TOKENS // windows.seq_len))
    batches, warm = 2, has(scorer, "warm_start")
    if warm:
        # So many batches, of fewer windows, cost what two whole ones do.
        batches = LANES_OF_WARM_START + 1
        batch_seqs = min(batch_seqs, max(2, -(-2 * batch_seqs // batches)))
    if warm or batch_seqs < windows.batch_seqs:
        windows = replace(windows, batch_seqs=batch_seqs)
        changes["batch_seqs"] = batch_seqs
    if has(scorer, "chunk_tokens"):
        # A chunk begins its batches anew, and must hold sequences to train on; what the second one learns counts, too.
        whole = batches if warm else 1
        chunk_tokens = max(windows.seq_len, whole * windows.batch_seqs * windows.stride)
        scorer = _shorter(scorer, chunk_tokens, changes)
        batches = max(batches, batches_for(windows, 2 * chunk_tokens))
    return scorer, windows, batches, changes


def batches_for(windows: WindowConfig, targets: int) -> int:
    """So many batches that the audited part has at least ``targets``."""
    return -(-(targets - windows.seq_len) // (windows.batch_seqs * windows.stride))


def has(config: Any, name: str) -> bool:
    """Whether ``config``, or a config inside it, has a field ``name`` that isn't zero."""
    if not is_dataclass(config) or isinstance(config, type):
        return False
    return bool(getattr(config, name, 0)) or any(has(getattr(config, field.name), name) for field in fields(config))


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
