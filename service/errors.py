"""What can go wrong, as a tree; every message carries the offending value and the way out.

CaddieError
├── SpecError        a recipe, an override, a seed list or a sweep doesn't make sense (also a ValueError)
├── CorpusError      documents, tokenizer or shards are missing, damaged or don't belong together
├── StoreError       the stage store can't be read or written
├── ClusterError     Ray can't be reached, or can't hold the gang
├── BudgetSpent      a stage was not launched because the budget can't pay it
├── StageFailed      a stage ended without a valid report; carries its class and the rank's traceback
└── RecordError      a record can't be assembled from what is there
"""

from __future__ import annotations

from enum import StrEnum


class CaddieError(Exception):
    """Base of all errors a user can meet; the command line prints it without a traceback."""


class SpecError(CaddieError, ValueError):
    """A value that was given doesn't fit."""


class CorpusError(CaddieError):
    """The corpus can't be prepared or used."""


class StoreError(CaddieError):
    """The stage store can't be read or written."""


class ClusterError(CaddieError):
    """The cluster isn't there, or is too small."""


class BudgetSpent(CaddieError):
    """The budget can't pay a stage."""


class RecordError(CaddieError):
    """A record folder can't be made."""


class FailureKind(StrEnum):
    """Why a stage failed. What is tried again, and how often: :data:`service.failures.RETRIES`."""

    PREEMPTED = "preempted"
    """The node went away, or the process that held the gang: nothing is said about the stage."""
    INFRASTRUCTURE = "infrastructure"
    """A rank killed, a GPU or the network broken, a gang that hung."""
    CAP = "cap exceeded"
    """A result: it doesn't fit."""
    BUG = "bug"
    """An exception, NaN, or out of memory: it would happen again."""
    OPERATOR = "operator"
    """Somebody has to act: the disk is full, a node has another source."""


class StageFailed(CaddieError):
    """A stage that ended without a valid report."""

    def __init__(self, stage: str, seed: int, kind: FailureKind, why: str) -> None:
        super().__init__(stage, seed, kind, why)
        self.stage, self.seed, self.kind, self.why = stage, seed, kind, why

    def __str__(self) -> str:
        return f"stage {self.stage} of seed {self.seed} failed ({self.kind}): {self.why}"
