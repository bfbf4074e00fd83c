"""What a gang is told to do, and the names of the files stages hand to each other. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHECKPOINT = "checkpoint.bin"
"""The train stage's averaged weights, float32."""
CURVE = "curve.json"
"""The train stage's global loss of each step, in nats."""
ARTIFACT = "artifact.bin"
"""The pack stage's file: the bytes that count, beside the code's."""

EXPOSURE = "exposure.json"
"""A scoring stage's notes: which targets it scored and which it learned from, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What ``job.json`` holds: one stage (or the whole chain) of one seed, for one gang."""

    config: Any
    """The run config; a ``model.run.RunConfig``, or the slice of it that the stage reads."""
    seed: int
    corpus: str
    """Folder with ``manifest.json``, the tokenizer and the shards."""
    corpus_digest: str = ""
    """Refuse any other corpus; empty takes what is there."""
    stage: str = ""
    """A stage's name; empty runs the whole chain."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Stage name -> folder with its outputs."""
    device: str = "cpu"
    """``cpu`` or ``cuda``."""
    threads: int = 1
    """CPU threads of a rank. Part of a stage's key: it changes the order of sums."""
