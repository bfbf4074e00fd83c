"""What finished stages were made of and took, for saying what differs and what to expect. Never a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.report import StageReport
from model.stages import Stage

MADE_OF = "key.json"
"""File beside a stage's report: the parts of its key, the values behind their digests, and what its gang took."""
START_S = 4.0
"""What a stage costs beside its own clock (torchrun, imports), where its gang's time wasn't noted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finished stage as its folder tells it; its outputs aren't verified."""

    key: str
    report: StageReport
    parts: Mapping[str, str]
    """Of its key; empty for an entry of a version that didn't keep them."""
    values: Mapping[str, Any]
    """Path -> the encoded slice of the config that a part digests."""
    sources: Mapping[str, str]
    """Module -> digest of what it says, for all that the stage could reach."""
    gang_s: float
    """Wall clock of the try, from the start of torchrun to its end."""
    company: int
    """How many stages shared that gang."""

    @property
    def stage(self) -> Stage:
        return Stage(self.report.stage)

    @property
    def seed(self) -> int:
        return self.report.seed


def finished_of(key: str, report: StageReport, made_of: Mapping[str, Any] | None) -> Finished:
    """A finished stage from its report and its ``key.json``, None where it has none.

    Raises:
        ValueError: that is of another form.
    """
    data = made_of or {}
    try:
        return Finished(
            key=key,
            report=report,
            parts={str(name): str(part) for name, part in data.get("parts", {}).items()},
            values=dict(data.get("values", {})),
            sources={str(name): str(part) for name, part in data.get("sources", {}).items()},
            gang_s=float(data.get("gang_s", report.elapsed_s + START_S)),
            company=int(data.get("company", 1)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{key}/{MADE_OF}: {error}") from error


def leaves(path: str, value: Any) -> dict[str, str]:
    """An encoded value as text by dotted path."""
    if type(value) is not dict:
        return {path: _text(value)}
    found: dict[str, str] = {}
    for name, part in value.items():
        if type(part) is dict:
            found |= leaves(f"{path}.{name}", part)
        else:
            found[f"{path}.{name}"] = _text(part)
    return found


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if value is True or value is False else str(value)
