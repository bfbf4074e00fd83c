"""Small views of specs that several outputs share."""

from __future__ import annotations

import dataclasses
from typing import Any

from service.spec import RunSpec

CLEAN = "clean"


def flat_params(spec: RunSpec) -> dict[str, str]:
    """Every setting of a spec by dotted path, as ``--set`` takes it."""
    params = _flat("", spec.config) | _flat("gang.", spec.gang) | _flat("budget.", spec.budget)
    return params | {"corpus": spec.corpus}


def legality_of(spec: RunSpec) -> dict[str, str]:
    """What each score of a spec is worth before anything runs, by the config alone: ``clean``, or how it is exposed to
    what it scores. Reports of finished stages count the tokens; an audit measures it.
    """
    if spec.config.adapt.prequant is not None:
        return {
            str(score): "exposed: the weights were adapted on the text before it was scored" for score in spec.scores
        }
    parts = {str(score): getattr(spec.config.score, score.value.removeprefix("score."), None) for score in spec.scores}
    return {score: _legality_of_part(part) for score, part in parts.items()}


def _legality_of_part(part: Any) -> str:
    settings = _flat("", part)
    if any(path.split(".")[-1] == "loss_on" and value == "scored" for path, value in settings.items()):
        return "exposed: it fits on the tokens that it scores"
    if getattr(part, "after", None) is not None:
        return "exposed: it starts from weights that were trained on all that it scores"
    return CLEAN


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if not dataclasses.is_dataclass(value):
        return {prefix.rstrip("."): str(value)}
    found: dict[str, str] = {}
    for field in dataclasses.fields(value):
        found |= _flat(f"{prefix}{field.name}.", getattr(value, field.name))
    return found
