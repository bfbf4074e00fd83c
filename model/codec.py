"""Frozen dataclasses to JSON and back, and the digest that names a value.

A tag is ``"module:Class"``, so that a rank can rebuild a config without a registry; the digest takes the class name
alone, so that moving a file never makes a new experiment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

TAG = "class"


def described(default: str = "") -> Any:
    """A dataclass field that names or explains and so never decides a result: the digest leaves it out."""
    return dataclasses.field(default=default, metadata={"described": True})


def encode(value: Any) -> Any:
    """``value`` as JSON data; dataclasses carry their class under ``"class"``, tuples become lists."""
    return _encode(value, for_digest=False)


def digest(value: Any, length: int = 16) -> str:
    """The first ``length`` hex digits of the SHA-256 of ``value``'s canonical JSON, descriptive fields left out."""
    text = json.dumps(_encode(value, for_digest=True), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def decode(data: Any) -> Any:
    """The inverse of :func:`encode`; lists become tuples.

    Raises:
        ValueError: a tag names a class outside ``model``, or one that is not there.
    """
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    if not isinstance(data, dict):
        return data
    fields = {name: decode(item) for name, item in data.items() if name != TAG}
    return _class_of(data[TAG])(**fields) if TAG in data else fields


def _encode(value: Any, *, for_digest: bool) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        tag = kind.__name__ if for_digest else f"{kind.__module__}:{kind.__qualname__}"
        fields = [f for f in dataclasses.fields(value) if not (for_digest and f.metadata.get("described"))]
        return {TAG: tag} | {f.name: _encode(getattr(value, f.name), for_digest=for_digest) for f in fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _encode(v, for_digest=for_digest) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item, for_digest=for_digest) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} of {type(value).__name__} has no JSON form here")


def _class_of(tag: str) -> type:
    module, _, name = tag.partition(":")
    if module.split(".")[0] != "model":
        raise ValueError(f"config class {tag!r} is not one of model's")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"config class {tag!r} is not in this source: {error}") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module):
        raise ValueError(f"config class {tag!r} is not a dataclass of that module")
    return found
