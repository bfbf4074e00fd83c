"""What a stage leaves behind: ``report.json``, written once and atomically. Standard library only.

A head node without torch reads reports; nobody reads numbers out of the logs of our own runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPORT = "report.json"
FAILURE = "failure"
"""``failure.<rank>.json``: why a rank raised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRef:
    """One output: its name inside the stage's folder, its size and its SHA-256."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """One stage of one seed: what it cost, what it measured, what it left on disk."""

    stage: str
    seed: int
    elapsed_s: float
    """Wall clock of rank 0 from joining the gang to the last output, loading and compiling included."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Flat and finite; the unit ends the name: ``val_bpb``, ``train_s``, ``model_bytes``."""
    outputs: Mapping[str, FileRef] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    """Where it ran: hardware, ranks, threads, torch, attention kernel."""

    def __post_init__(self) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {"stage": str, "seed": int, "elapsed_s": (int, float)}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"stage report: {name} is {getattr(self, name)!r}")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"stage {self.stage}: metric {name} is {value}; a stage that diverged has no report")


def file_ref(folder: Path, name: str) -> FileRef:
    """Size and digest of ``folder/name``."""
    with open(folder / name, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRef(path=name, size_bytes=(folder / name).stat().st_size, sha256=sha256)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` so that a reader sees all of it or none, also after a crash or on a full disk."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(scratch, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, sort_keys=True, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_report(folder: Path, report: StageReport) -> None:
    """Write ``report.json``; the last thing a stage does."""
    write_json(folder / REPORT, dataclasses.asdict(report))


def write_failure(folder: Path, rank: int, error: BaseException) -> None:
    """Leave word of why a rank ends; the first word stays, which is the one next to the cause."""
    path = folder / f"{FAILURE}.{rank}.json"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    trace = "".join(traceback.format_exception(error))
    write_json(path, {"rank": rank, "error": f"{type(error).__name__}: {error}", "traceback": trace})


def report_from_json(data: Mapping[str, Any]) -> StageReport:
    """A report from its JSON form.

    Raises:
        ValueError: fields are missing, unknown or of the wrong kind.
    """
    try:
        outputs = {name: FileRef(**ref) for name, ref in data["outputs"].items()}
        return StageReport(**{**data, "outputs": outputs})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a stage report: {error}") from error


def read_report(folder: Path) -> StageReport:
    """The report in ``folder``.

    Raises:
        ValueError: it is missing or can't be read, which is how a stage that didn't finish looks.
    """
    path = folder / REPORT
    try:
        return report_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, ValueError) as error:
        raise ValueError(f"{path}: no valid report ({error})") from error
