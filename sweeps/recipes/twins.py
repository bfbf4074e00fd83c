"""Small twins of the field's records: every technique and stage, at a size that one CPU core runs in seconds; where
test-time training is part of it, in tens of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.score.windows import WindowConfig
from service.spec import Budget, GangShape, RunSpec

LAYERS = 5
"""The fewest with two layers that save skips, one in the middle to loop, and two behind it."""
NARROW = {"dim": 32, "heads": 2, "kv_heads": 1, "vocab_size": 512, "rope_trained_len": 64}
TABLE_WIDTH = 12
"""Of hash and value embeddings, below the widths that they are brought to."""


def twin_of(full: RunSpec, name: str) -> RunSpec:
    """``full`` with small networks, texts and fits, ending by steps; what it does and in which order stays."""
    config = full.config
    train = replace(
        config.train,
        steps=24,
        minutes=0.0,
        batch_tokens=1024,
        seq_len=128,
        micro_seqs=8,
        warmup_steps=2,
        warmdown_steps=min(config.train.warmdown_steps, 14),
        ema_decay=0.8,
        log_every=6,
        optim=replace(config.train.optim, muon_momentum_warmup_steps=12),
    )
    overlap = config.score.windows.stride < config.score.windows.seq_len
    score = replace(
        config.score,
        windows=WindowConfig(seq_len=128, stride=112 if overlap else 128),
        ttt=_smaller(config.score.ttt),
        slot=_smaller(config.score.slot),
    )
    return replace(
        full,
        name=name,
        track="tiny_cpu",
        baseline="naive_tiny",
        config=replace(
            config,
            net=_narrow(config.net),
            train=train,
            adapt=replace(config.adapt, prequant=_smaller(config.adapt.prequant)),
            pack=replace(config.pack, small_numel=1024, gptq=_smaller(config.pack.gptq)),
            score=score,
        ),
        gang=GangShape(ranks=1, threads=1, device="cpu"),
        budget=Budget(artifact_bytes=300_000),
        notes=f"CPU twin of {full.name}: {full.notes}",
    )


def _narrow(net: Any) -> Any:
    """The same kind of network in small; its parts fit the fewer layers."""
    parts = {name: part.shrunk(LAYERS) for name, part in net.parts.items()}
    if net.bigram is not None:
        parts["bigram"] = replace(parts["bigram"], rows=256, width=TABLE_WIDTH)
    if net.value_embedding is not None:
        parts["value_embedding"] = replace(parts["value_embedding"], width=TABLE_WIDTH)
    rope_dims = min(net.rope_dims, NARROW["dim"] // NARROW["heads"])
    return replace(net, layers=LAYERS, rope_dims=rope_dims, **NARROW, **parts)


def _smaller(fit: Any) -> Any:
    """What is fitted on validation text, and what runs before it or inside it, over shorter stretches."""
    if fit is None:
        return None
    small = {"epochs": 1, "chunk_tokens": 16_384, "batch_seqs": 64, "micro_seqs": 16, "steps": 4, "batches": 4}
    changes: dict[str, Any] = {
        name: min(most, getattr(fit, name)) for name, most in small.items() if hasattr(fit, name)
    }
    changes |= {name: _smaller(getattr(fit, name)) for name in ("after", "score_with") if getattr(fit, name, None)}
    return replace(fit, **changes)
