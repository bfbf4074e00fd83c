"""Strict changes to frozen configs by dotted path: ``{"score.slot.lr": 0.012}``. Standard library only.

Overlays, the command line's ``--set`` and a bundled script's environment all go through here, so all give the same
errors: an unknown path names what exists, a wrong value names what is taken.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

LARGEST_FLOAT32 = 3.4028234663852886e38


def overlay(config: Any, changes: Mapping[str, Any]) -> Any:
    """``config`` with the fields at the given paths replaced; ``config`` itself stays.

    Raises:
        ValueError: a path or a value that doesn't fit, with the way out in the message.
    """
    return _replace_all(config, {tuple(path.split(".")): value for path, value in changes.items()}, 0)


def check_finite_fields(config: Any, path: str) -> None:
    """Refuse NaN and infinity in a config's own float fields, and what float32 can't hold: comparisons let NaN pass.

    Raises:
        ValueError: with the field's path and value.
    """
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if isinstance(value, float) and not abs(value) <= LARGEST_FLOAT32:
            raise ValueError(f"{path}.{one.name} must be a finite number that float32 holds, got {value}")


def field_at(config: Any, path: str) -> Any:
    """The value at a dotted path.

    Raises:
        ValueError: there is no such field.
    """
    names = tuple(path.split("."))
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


def _replace_all(config: Any, changes: Mapping[tuple[str, ...], Any], depth: int) -> Any:
    """All changes below one config at once, so that fields that only fit together can change together."""
    values: dict[str, Any] = {}
    below: dict[str, dict[tuple[str, ...], Any]] = {}
    for names, value in changes.items():
        _check_field(config, names, depth)
        name, path = names[depth], ".".join(names)
        if depth + 1 < len(names):
            below.setdefault(name, {})[names] = value
            continue
        old, hint = getattr(config, name), typing.get_type_hints(type(config))[name]
        value = _built(path, hint, value)
        group = dataclasses.is_dataclass(old) and not dataclasses.is_dataclass(value)
        if group and not (value is None and type(None) in typing.get_args(hint)):
            raise ValueError(f"{path} is a group of fields, set one of them: {_children(path, old)}")
        values[name] = _coerce(path, hint, value)
    for name, inner in below.items():
        values[name] = _replace_all(values.get(name, getattr(config, name)), inner, depth + 1)
    return dataclasses.replace(config, **values) if values else config


def _built(path: str, hint: Any, value: Any) -> Any:
    """``module:Class`` of ``model`` as that config with its defaults, where a kind of config is asked for; so that an
    optional part can be turned on, or one technique put in another's place, from a command line."""
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if getattr(kind, "_is_protocol", False)]
    if not kinds or not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    try:
        if module.split(".")[0] != "model":
            raise ImportError("only what lies in model/ can be part of a config")
        kind = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise ImportError(f"{name} is no config")
        return kind()
    except (ImportError, AttributeError, TypeError) as error:
        way_out = "write module:Class, e.g. model.adapt.ttt:Ttt"
        raise ValueError(f"{path} must be a {kinds[0].__name__}, got {value!r}: {error}; {way_out}") from None


def _check_field(config: Any, names: tuple[str, ...], depth: int) -> None:
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
    if hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"{path} must be a finite number, got {value!r:.40}")
        return float(value)
    if hint is bool and value in (0, 1):
        return bool(value)
    if hint is str and type(value) in (int, float):
        return str(value)
    if not isinstance(hint, type):
        raise ValueError(f"{path} can't be set from outside, it is a {hint}")
    if dataclasses.is_dataclass(value) and isinstance(value, hint):
        return value  # a whole group at once, as a recipe or a sweep may write it
    if type(value) is not hint:
        raise ValueError(f"{path} must be of type {hint.__name__}, got {value!r}")
    return value
