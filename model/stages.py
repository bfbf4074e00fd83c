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
    """In the order a seed takes them: TRAIN -> PREQUANT, if it is on -> PACK -> any of the scores, each alone and from
    the packed artifact. AUDIT is of no seed; SCRIPT is somebody else's script, which does all of it."""

    TRAIN = "train"
    PREQUANT = "adapt.prequant"
    PACK = "pack"
    SLIDING = "score.sliding"
    TTT = "score.ttt"
    SLOT = "score.slot"
    AUDIT = "audit"
    SCRIPT = "script"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageDef:
    """What a stage executes and what can change its result."""

    entry: str
    """``module:function`` taking (job, out, gang) and returning metrics; its import closure is part of the key."""
    reads: tuple[str, ...]
    """Paths into the run config; nothing else of the config is part of the key."""
    together: str = ""
    """``module:function`` that runs several of this stage in one gang, each with the result it has alone; they differ
    in the last of ``reads`` only, and there not in ``alike``."""
    alike: tuple[str, ...] = ()
    after: tuple[Stage, ...] = ()
    """The stage whose outputs this one reads: the first of these that the seed takes."""
    seeded: bool = False
    """Whether it draws random numbers itself. Later stages depend on the seed through what they read."""
    corpus: bool = True
    """Whether tokens or the byte table are read."""
    of_a_seed: bool = True
    """Whether a recipe's seed takes it; an audit is of a config, a script of no recipe."""


STAGES: Mapping[Stage, StageDef] = MappingProxyType(
    {
        Stage.TRAIN: StageDef(entry="model.train:train_stage", reads=("net", "train"), seeded=True),
        Stage.PREQUANT: StageDef(
            entry="model.adapt.stage:prequant_stage",
            reads=("net", "train.seq_len", "adapt.prequant"),
            after=(Stage.TRAIN,),
        ),
        Stage.PACK: StageDef(
            # Net, length and corpus are those of calibration, and decide the checkpoint anyway.
            entry="model.quant.pack:pack_stage",
            reads=("net", "train.seq_len", "pack"),
            after=(Stage.PREQUANT, Stage.TRAIN),
        ),
        Stage.SLIDING: StageDef(
            entry="model.score.stage:score_stage", reads=("net", "score.windows", "score.sliding"), after=(Stage.PACK,)
        ),
        Stage.TTT: StageDef(
            entry="model.score.stage:score_stage", reads=("net", "score.windows", "score.ttt"), after=(Stage.PACK,)
        ),
        Stage.SLOT: StageDef(
            entry="model.score.stage:score_stage",
            reads=("net", "score.windows", "score.slot"),
            together="model.score.together:score_slots",
            alike=("score.slot.loss_on", "score.slot.context_tokens", "score.slot.after"),
            after=(Stage.PACK,),
        ),
        # Reads the scorer that is audited, too, and ``adapt.prequant`` if it is on.
        Stage.AUDIT: StageDef(entry="model.audit.stage:audit_stage", reads=("net", "score.windows"), of_a_seed=False),
        Stage.SCRIPT: StageDef(entry="model.script:become", reads=(), seeded=True, corpus=False, of_a_seed=False),
    }
)
