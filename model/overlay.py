"""Strict changes to frozen configs by dotted path: ``{"score.slot.lr": 0.012}``. Standard library only.

Overlays, the command line's ``--set`` and a bundled script's environment all go through here, so all give the same
errors: an unknown path names what exists, a wrong value names what is taken.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


def overlay(config: Any, changes: Mapping[str, Any]) -> Any:
    """``config`` with the fields at the given paths replaced; ``config`` itself stays.

    Raises:
        ValueError: a path or a value that doesn't fit, with the way out in the message.
    """
    for path, value in changes.items():
        config = _replace(config, path.split("."), 0, value)
    return config


def field_at(config: Any, path: str) -> Any:
    """The value at a dotted path.

    Raises:
        ValueError: there is no such field.
    """
    names = path.split(".")
    for depth, name in enumerate(names):
        _check_field(config, names, depth)
        config = getattr(config, name)
    return config


def parse_value(text: str) -> Any:
    """A word from a command line or an environment: an int, a float, true/false, none, or the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _replace(config: Any, names: list[str], depth: int, value: Any) -> Any:
    _check_field(config, names, depth)
    name, path = names[depth], ".".join(names)
    old = getattr(config, name)
    if depth + 1 < len(names):
        return dataclasses.replace(config, **{name: _replace(old, names, depth + 1, value)})
    hint = typing.get_type_hints(type(config))[name]
    if dataclasses.is_dataclass(old) and not (value is None and type(None) in typing.get_args(hint)):
        raise ValueError(f"{path} is a group of fields, set one of them: {_children(path, old)}")
    return dataclasses.replace(config, **{name: _coerce(path, hint, value)})


def _check_field(config: Any, names: list[str], depth: int) -> None:
    here = ".".join(names[:depth])
    if config is None:
        raise ValueError(f"'{'.'.join(names)}': {here} is off in this recipe")
    if not dataclasses.is_dataclass(config):
        raise ValueError(f"'{'.'.join(names)}': {here} is a single value, it has no field {names[depth]!r}")
    if names[depth] not in {f.name for f in dataclasses.fields(config)}:
        raise ValueError(f"'{'.'.join(names)}': no field {names[depth]!r}; there is {_children(here, config)}")


def _children(path: str, config: Any) -> str:
    return ", ".join(f"{path}.{f.name}" if path else f.name for f in dataclasses.fields(config))


def _coerce(path: str, hint: Any, value: Any) -> Any:
    """``value`` as ``hint`` asks; an int serves as a float, 0 and 1 as a bool, nothing else is bent."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if value in options:
            return value
        raise ValueError(f"{path} must be one of {', '.join(map(repr, options))}, got {value!r}")
    if isinstance(hint, types.UnionType):
        if value is None and type(None) in options:
            return None
        (hint,) = (option for option in options if option is not type(None))
    if hint is float and type(value) in (int, float) and value == value and abs(value) != float("inf"):
        return float(value)
    if hint is bool and value in (0, 1):
        return bool(value)
    if hint is str and type(value) in (int, float):
        return str(value)
    if not isinstance(hint, type):
        raise ValueError(f"{path} can't be set from outside, it is a {hint}")
    if type(value) is not hint:
        raise ValueError(f"{path} must be of type {hint.__name__}, got {value!r}")
    return value
