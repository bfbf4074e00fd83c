"""What a scoring pass noted of the validation stream: which targets were scored, which were learned from, in order.

The rule that scores come before updates (openai/parameter-golf #1017, C3) is derived from these notes and not from a
config's word for it: a target counts as *exposed* when whatever scored it had been fitted on it, or on a later one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Targets [first, stop) were scored, or the weights were trained on them."""

    kind: Literal["scored", "trained"]
    first: int
    stop: int
    fitted_ahead: int | None = None
    """Of a score by a fitted state (SLOT): how far the targets it was fitted on reach beyond ``first``; at most 0 if
    it only knew earlier ones. None: nothing was fitted."""

    def as_json(self) -> dict[str, Any]:
        """What is known of it, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Exposure:
    """The notes of one rank, in the order in which things happened; neighbours that say the same are one event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.exposed = 0
        """Targets scored after being learned from, or after a later one was."""
        self.trained_to = 0
        """End of the newest target that the weights have been trained on."""

    def scored(self, first: int, stop: int, fitted_to: int | None = None) -> None:
        """Targets [first, stop) were scored, by a state fitted on targets before ``fitted_to``."""
        reach = max(self.trained_to, fitted_to or 0)
        self.exposed += max(0, min(stop, reach) - first)
        self._note(Event(kind="scored", first=first, stop=stop, fitted_ahead=fitted_to and fitted_to - first))

    def trained(self, first: int, stop: int) -> None:
        """The weights that score from now on have been trained on targets [first, stop)."""
        self.trained_to = max(self.trained_to, stop)
        self._note(Event(kind="trained", first=first, stop=stop))

    def _note(self, event: Event) -> None:
        last: Event | None = self.events[-1] if self.events else None
        if last and (last.kind, last.stop, last.fitted_ahead) == (event.kind, event.first, event.fitted_ahead):
            self.events[-1] = replace(last, stop=event.stop)
        else:
            self.events.append(event)


def exposure_json(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Events as ``exposure.json`` holds them."""
    return [event.as_json() for event in events]


def read_exposure(path: Path) -> list[Event]:
    """The events in an ``exposure.json``; none where there is no such file, because nothing was learned from."""
    return [Event(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
