"""One base with many overlays: what ``base.at`` gives, without asking for each value again whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any


class Overlays:
    """``at`` for the trials of a grid, which hold the same values over and over."""

    def __init__(self, base: Any) -> None:
        self.base = base
        """A :class:`service.spec.RunSpec`."""
        self._own = {field.name for field in fields(base)}
        self._fitted: dict[tuple[str, int], tuple[Any, Any]] = {}

    def at(self, changes: Mapping[str, Any]) -> Any:
        """``base.at(changes)``.

        Raises:
            SpecError: as there.
        """
        if _nested(changes):
            return self.base.at(changes)
        try:
            tree: dict[str, Any] = {}
            for path, value in changes.items():
                *above, last = self._names(path)
                node = tree
                for name in above:
                    node = node.setdefault(name, {})
                node[last] = self._fit(path, value)
            return _replaced(self.base, tree)
        except (ValueError, TypeError, AttributeError):
            # Values that only fit together, or don't fit at all: then this says why.
            return self.base.at(changes)

    def _names(self, path: str) -> list[str]:
        names = path.split(".")
        return names if names[0] in self._own else ["config", *names]

    def _fit(self, path: str, value: Any) -> Leaf:
        """``value`` as the field at ``path`` holds it. By identity: 1, 1.0 and True are equal and fit differently."""
        found = self._fitted.get((path, id(value)))
        if found is None:
            changed: Any = self.base.at({path: value})
            for name in self._names(path):
                changed = getattr(changed, name)
            found = self._fitted[path, id(value)] = (value, Leaf(changed))
        leaf: Leaf = found[1]
        return leaf


class Leaf:
    """A value, told apart from a level of the tree."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _nested(changes: Mapping[str, Any]) -> bool:
    """Whether one path lies below another, so that their order would count."""
    return len(changes) > 1 and any(
        one != other and other.startswith(f"{one}.") for one in changes for other in changes
    )


def _replaced(config: Any, tree: Mapping[str, Any]) -> Any:
    values = {
        name: part.value if isinstance(part, Leaf) else _replaced(getattr(config, name), part)
        for name, part in tree.items()
    }
    return replace(config, **values) if values else config
