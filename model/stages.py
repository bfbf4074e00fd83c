"""The stages of a seed as one table: what runs, what it reads, what it stands on. Standard library only.

``service`` takes stage keys and launch order from this table and ``python -m model`` its entry points, so the two
can't drift apart. No stage imports it: a new row changes no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Stage(StrEnum):
    """In the order a seed takes them: TRAIN -> PACK -> any of the scores, each alone and from the packed artifact."""

    TRAIN = "train"
    PACK = "pack"
    SLIDING = "score.sliding"
    SLOT = "score.slot"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageDef:
    """What a stage executes and what can change its result."""

    entry: str
    """``module:function`` taking (job, out, gang) and returning metrics; its import closure is part of the key."""
    reads: tuple[str, ...]
    """Paths into the run config; nothing else of the config is part of the key."""
    after: Stage | None = None
    """The stage whose outputs this one reads."""
    seeded: bool = False
    """Whether it draws random numbers itself. Later stages depend on the seed through what they read."""
    corpus: bool = True
    """Whether tokens or the byte table are read."""


STAGES: Mapping[Stage, StageDef] = MappingProxyType(
    {
        Stage.TRAIN: StageDef(entry="model.train:train_stage", reads=("net", "train"), seeded=True),
        Stage.PACK: StageDef(entry="model.quant.pack:pack_stage", reads=("pack",), after=Stage.TRAIN, corpus=False),
        Stage.SLIDING: StageDef(
            entry="model.score.stage:score_stage", reads=("net", "score.windows", "score.sliding"), after=Stage.PACK
        ),
        Stage.SLOT: StageDef(
            entry="model.score.stage:score_stage", reads=("net", "score.windows", "score.slot"), after=Stage.PACK
        ),
    }
)
