"""Why a gang failed, judged from what its ranks said, and how often each class of failure is tried again.

Ranks that lose a neighbour all raise something; the reason is at the one that raised for itself, or at the one that
said nothing because it was killed. What the hardware, its driver or the network between ranks is known to say is not
the code's fault, whoever raises it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.report import FAILURE
from service.errors import FailureKind
from service.nodes import STRIKES

RETRIES: Mapping[FailureKind, int] = {FailureKind.PREEMPTED: 8, FailureKind.INFRASTRUCTURE: 2}
"""How often a stage is tried again after failures of a class, each with a budget of its own. A bug doesn't get better,
a cap is a result, and an operator has to act: those are never tried again."""

HARDWARE = re.compile(
    r"\bECC\b|\bXid\b|NVLink|GPU is lost|fallen off the bus|unspecified launch failure|CUDA driver|hardware error"
    r"|uncorrectable|no CUDA-capable device|CUDA initialization",
    re.IGNORECASE,
)
"""What a GPU or its driver is known to say. The node is set apart."""
NETWORK = re.compile(
    r"NCCL|ncclSystemError|ncclRemoteError|ncclInternalError|DistBackendError|DistNetworkError|DistStoreError"
    r"|Connection (closed|reset|refused)|Broken pipe|Timed out waiting|Timed out initializing|rendezvous|gloo",
    re.IGNORECASE,
)
"""What the collectives say when a neighbour is gone, or the network is."""
FULL = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
"""A disk that is full: somebody has to act, and the same command goes on from there."""
MEMORY = re.compile(r"OutOfMemoryError|MemoryError|out of memory", re.IGNORECASE)
"""Too much was asked of a GPU or a machine: the same config asks for it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankFailure:
    """What one rank left behind when it raised: ``failure.<rank>.json``."""

    rank: int
    error: str
    """``Class: message``."""
    traceback: str

    @property
    def kind(self) -> FailureKind:
        if FULL.search(self.error):
            return FailureKind.OPERATOR
        if MEMORY.search(self.error):
            return FailureKind.BUG
        node = HARDWARE.search(self.error) or NETWORK.search(self.error)
        return FailureKind.INFRASTRUCTURE if node else FailureKind.BUG


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why a try has no report."""

    kind: FailureKind
    why: str
    strikes: int = 0
    """Against the node: how much it is to blame. At :data:`service.nodes.STRIKES` it is set apart."""


def failures_of(attempt: Path) -> tuple[RankFailure, ...]:
    """What the ranks of a try died of; the first to die comes first, because the others may have died of its death. A
    rank that was killed while it wrote has said nothing."""
    found = []
    for path in (attempt / "out").glob(f"{FAILURE}.*.json"):
        try:
            died_ns, said = path.stat().st_mtime_ns, rank_failure(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
        found.append((died_ns, said.rank, said))
    return tuple(said for *_, said in sorted(found, key=lambda row: row[:2]))


def rank_failure(data: Mapping[str, Any]) -> RankFailure:
    """From its JSON form.

    Raises:
        ValueError: it is no such thing, as when a rank was killed while it wrote.
    """
    try:
        return RankFailure(rank=int(data["rank"]), error=str(data["error"]), traceback=str(data["traceback"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a rank's failure: {error!r}") from error


def cause_of(failures: Sequence[RankFailure], exit_code: int, ranks: int) -> Cause:
    """Why a gang of ``ranks`` ended with ``exit_code`` and no valid report.

    A rank's own error comes first, with its traceback; then hardware; then the collectives, which speak for a neighbour
    that is gone; and last the silence of ranks that were killed.
    """
    full = next((one for one in failures if one.kind is FailureKind.OPERATOR), None)
    if full is not None:
        return Cause(kind=FailureKind.OPERATOR, why=f"{told(full)} - free some space and run the same command again")
    own = next((one for one in failures if one.kind is FailureKind.BUG), None)
    if own is not None:
        return Cause(kind=FailureKind.BUG, why=told(own))
    broken = next((one for one in failures if HARDWARE.search(one.error)), None)
    if broken is not None:
        return Cause(kind=FailureKind.INFRASTRUCTURE, why=told(broken), strikes=STRIKES)
    silent = sorted(set(range(ranks)) - {one.rank for one in failures})
    gone = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))} ended without a word"
    if failures:
        heard = f"rank {failures[0].rank}: {failures[0].error}"
        why = f"{gone}; {heard}" if silent else heard
        return Cause(kind=FailureKind.INFRASTRUCTURE, why=why)
    return Cause(kind=FailureKind.INFRASTRUCTURE, why=f"torchrun ended with {exit_code}; {gone}")


def told(failure: RankFailure) -> str:
    """The rank's words, and the innermost lines of its traceback."""
    frames = [line.rstrip() for line in failure.traceback.splitlines() if line.lstrip().startswith("File ")]
    places = "; ".join(line.strip() for line in frames[-2:])
    return f"rank {failure.rank}: {failure.error}" + (f" [{places}]" if places else "")
