"""The seal of a finished stage: ``files.json`` beside its report, with size and SHA-256 of every other file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from model.report import FileRef, StageReport, file_ref, read_report, write_json
from service.history import MADE_OF

SEAL = "files.json"
SEALED = "sealed"
"""In ``key.json``: there is a seal, so that one that is gone is missed."""
SETTLED_NS = 2_000_000_000
"""A file that was touched so lately may be touched again within the same tick of the file system's clock."""

Marks = tuple[tuple[str, int, int, int], ...]
"""Name, size, inode and time of last change (ns) of each file; nobody can set the last."""


def verify(folder: Path) -> StageReport:
    """The report in ``folder``, all of whose files are as they were written.

    Raises:
        ValueError: with the file that isn't.
    """
    report = read_report(folder)
    for name, ref in {**report.outputs, **read_seal(folder)}.items():
        whole = (folder / name).is_file() and file_ref(folder, name) == ref
        if not whole or report.outputs.get(name, ref) != ref:
            raise ValueError(f"{name} is missing or changed")
    return report


def marks(folder: Path) -> Marks | None:
    """What changes when a file in ``folder`` is touched; None when there is no such folder."""
    found = []
    try:
        for place, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                path = os.path.join(place, name)
                stat = os.lstat(path)
                found.append((path, stat.st_size, stat.st_ino, stat.st_ctime_ns))
    except OSError:
        return None
    return tuple(sorted(found))


def settled(found: Marks) -> bool:
    """Whether the next change of any file will show in its marks."""
    return time.time_ns() - max((changed_ns for *_, changed_ns in found), default=0) > SETTLED_NS


def write_seal(folder: Path) -> None:
    """Seal every file that is in ``folder`` now."""
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())
    refs = {name: file_ref(folder, name) for name in names if name != SEAL}
    write_json(
        folder / SEAL, {name: {"size_bytes": ref.size_bytes, "sha256": ref.sha256} for name, ref in refs.items()}
    )


def read_seal(folder: Path) -> dict[str, FileRef]:
    """What the seal in ``folder`` says of each file; empty for an entry of a version that didn't seal.

    Raises:
        ValueError: it is damaged, or was there once.
    """
    path = folder / SEAL
    try:
        if not path.exists():
            made_of = json.loads((folder / MADE_OF).read_text(encoding="utf-8")) if (folder / MADE_OF).exists() else {}
            if SEALED in made_of:
                raise ValueError(f"{SEAL} is missing")
            return {}
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        if text != f"{json.dumps(data, indent=1, sort_keys=True)}\n":
            raise ValueError(f"{SEAL} is changed")
        return {name: FileRef(path=name, **ref) for name, ref in data.items()}
    except (OSError, TypeError, AttributeError) as error:
        raise ValueError(f"{SEAL} can't be read ({error})") from error


def _raise(error: OSError) -> None:
    raise error
