"""What a remote store says of a finished stage: ``entries/<key>.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from model.report import FileRef, StageReport, report_from_json


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What the store says of a finished stage."""

    digest: str
    """Of its report's bytes: the folder of its files."""
    files: Mapping[str, FileRef]
    report: StageReport
    made_of: Mapping[str, Any] | None

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False).encode()


def entry_from_json(data: bytes) -> Entry:
    """An entry from its bytes.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(data)
        return Entry(
            digest=str(found["digest"]),
            files={name: FileRef(**ref) for name, ref in found["files"].items()},
            report=report_from_json(found["report"]),
            made_of=found["made_of"],
        )
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"not an entry: {error!r}") from error
