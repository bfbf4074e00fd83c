"""``model.codec`` with a memory, for plans of many trials: the same forms and digests, each object walked once.

By identity and not by equality, because 1, 1.0 and True are equal and have different digests. Objects are kept, so that
an identity is never given to another.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from json.encoder import encode_basestring_ascii
from typing import Any

from model.codec import TAG, encode

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Form:
    """What counts of a value."""

    canonical: str
    """The JSON that :func:`model.codec.digest` digests."""
    modules: frozenset[str]
    """Where the classes inside are defined."""

    def digest(self, length: int = 16) -> str:
        """As :func:`model.codec.digest`."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataclass is written."""

    tag: str
    names: tuple[str, ...]
    canonical: tuple[tuple[str, str], ...]
    """Name and ``"name":`` of each field that counts, in JSON's order; ``"class"`` among them, with its text."""


class Memory:
    """Forms of configs, for as long as this object lives."""

    def __init__(self) -> None:
        self._forms: dict[int, tuple[Any, Form]] = {}
        self._encoded: dict[int, tuple[Any, Any]] = {}

    def encoded(self, value: Any) -> Any:
        """As :func:`model.codec.encode`; shared, never to be changed."""
        found = self._encoded.get(id(value))
        if found:
            return found[1]
        if not is_dataclass(value) or isinstance(value, type):
            return encode(value)
        kind: Any = type(value)
        layout = _layout(kind)
        encoded: dict[str, Any] = {TAG: layout.tag}
        for name in layout.names:
            part = getattr(value, name)
            encoded[name] = part if type(part) in SCALARS else self.encoded(part)
        self._encoded[id(value)] = (value, encoded)
        return encoded

    def form(self, value: Any) -> Form:
        """What counts of ``value``."""
        found = self._forms.get(id(value))
        if found:
            return found[1]
        if not is_dataclass(value) or isinstance(value, type):
            return self._other(value)
        form = self._dataclass(value)
        self._forms[id(value)] = (value, form)
        return form

    def token(self, value: Any) -> Any:
        """Equal for two values only if their forms are, and cheap."""
        if id(value) in self._forms:
            return id(value)
        if is_dataclass(value):
            self.form(value)  # from now on it is kept, and so is its identity
            return id(value)
        return type(value), repr(value)

    def _dataclass(self, value: Any) -> Form:
        texts: list[str] = []
        modules = {type(value).__module__}
        kind: Any = type(value)
        for name, before in _layout(kind).canonical:
            if name == TAG:
                texts.append(before)
                continue
            part = getattr(value, name)
            write = SCALARS.get(type(part))
            if write:
                texts.append(before + write(part))
            else:
                form = self.form(part)
                texts.append(before + form.canonical)
                modules |= form.modules
        return Form("{" + ",".join(texts) + "}", frozenset(modules))

    def _other(self, value: Any) -> Form:
        """Of what isn't a dataclass; made anew each time, but for the dataclasses inside."""
        if isinstance(value, Mapping):
            forms = {str(name): self.form(part) for name, part in value.items()}
            text = ",".join(f"{encode_basestring_ascii(name)}:{forms[name].canonical}" for name in sorted(forms))
            return Form(f"{{{text}}}", _modules(forms.values()))
        if isinstance(value, (list, tuple)):
            parts = [self.form(part) for part in value]
            return Form(f"[{','.join(part.canonical for part in parts)}]", _modules(parts))
        write = SCALARS.get(type(value))
        return Form(write(value) if write else _dumps(encode(value)), NONE)


def _modules(forms: Iterable[Form]) -> frozenset[str]:
    return NONE.union(*(form.modules for form in forms))


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"Out of range float values are not JSON compliant: {value!r}")
    return float.__repr__(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


SCALARS: Mapping[type, Callable[[Any], str]] = {
    int: int.__repr__,
    float: _float,
    str: encode_basestring_ascii,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
}
"""The JSON of what stands in a config most often."""


@functools.cache
def _layout(kind: Any) -> Layout:
    own = fields(kind)
    before = {field.name: f'"{field.name}":' for field in own if not field.metadata.get("described")}
    before |= {TAG: f'"{TAG}":{encode_basestring_ascii(kind.__name__)}'}
    return Layout(
        tag=f"{kind.__module__}:{kind.__qualname__}",
        names=tuple(field.name for field in own),
        canonical=tuple(sorted(before.items())),
    )
