"""Which finished stage is made most like a planned one, and in what the two differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.history import Finished, leaves
from service.source import module_digests
from service.stages import PlannedStage

AT_MOST = 4
"""Differences of one kind that are written out."""


class Settings:
    """Slices of configs as settings, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def planned(self, planned: PlannedStage, path: str) -> dict[str, str]:
        """The settings in one slice of a planned stage."""
        at = (path, planned.parts[path])
        if at not in self._known:
            self._known[at] = leaves(path, planned.value(path))
        return self._known[at]

    def finished(self, one: Finished, path: str) -> dict[str, str]:
        """The settings in one slice of a finished stage."""
        at = (path, one.parts[path])
        if at not in self._known:
            self._known[at] = leaves(path, one.values[path])
        return self._known[at]


class Nearest:
    """The finished stages of one kind, to find the one nearest to a planned stage.

    Nearest is what differs in the fewest parts of the key, then is of the same seed, then differs in the fewest
    settings, then is the newest.
    """

    def __init__(self, finished: Sequence[Finished], settings: Settings) -> None:
        self.finished, self.settings = [one for one in finished if one.parts], settings
        self._parts = {part for one in self.finished for part in one.parts.items()}
        self._seeds = {one.seed for one in self.finished}
        self._leaves = [
            {path: frozenset(settings.finished(one, path).items()) for path in one.values if path in one.parts}
            for one in self.finished
        ]
        self._known_leaves = frozenset(leaf for own in self._leaves for some in own.values() for leaf in some)
        self._slices = {path for one in self.finished for path in one.values}
        self._marks: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}
        self._ties: dict[Any, list[int]] = {}
        self._found: dict[Any, Finished] = {}

    def to(self, planned: PlannedStage) -> Finished | None:
        """The nearest one; None where there is none that says what it was made of."""
        if not self.finished:
            return None
        # Values that no finished stage has are all alike: so thousands of trials ask only a few different questions.
        new = [part for part in planned.parts.items() if part not in self._parts]
        seed = planned.seed if planned.seed in self._seeds else None
        known = (seed, *(part for part in planned.parts.items() if part in self._parts))
        marks = [self._mark(planned, part) for part in new if part[0] in self._slices]
        by = (known, *marks)
        if by not in self._found:
            if known not in self._ties:
                self._ties[known] = self._fewest_parts(planned)
            self._found[by] = self.finished[self._fewest_settings(planned, self._ties[known])]
        return self._found[by]

    def _mark(self, planned: PlannedStage, part: tuple[str, str]) -> frozenset[tuple[str, str]]:
        """Of a slice that no finished stage has, the settings that one has."""
        if part not in self._marks:
            self._marks[part] = self._known_leaves.intersection(self.settings.planned(planned, part[0]).items())
        return self._marks[part]

    def _fewest_parts(self, planned: PlannedStage) -> list[int]:
        def distance(one: Finished) -> tuple[int, bool]:
            names = planned.parts.keys() | one.parts.keys()
            return sum(planned.parts.get(n) != one.parts.get(n) for n in names), planned.seed != one.seed

        distances = [distance(one) for one in self.finished]
        least = min(distances)
        return [i for i, distance in enumerate(distances) if distance == least]

    def _fewest_settings(self, planned: PlannedStage, among: Sequence[int]) -> int:
        slices = self._slices & planned.parts.keys()
        own = {path: frozenset(self.settings.planned(planned, path).items()) for path in slices}

        def distance(i: int) -> int:
            theirs, parts = self._leaves[i], self.finished[i].parts
            return sum(
                len(own[path] - theirs.get(path, frozenset())) for path in own if parts.get(path) != planned.parts[path]
            )

        return min(among, key=distance)


class Words:
    """What differs between a finished stage and a planned one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._sources: dict[tuple[str, ...], dict[str, str]] = {}
        self._slices: dict[tuple[str, str, str], list[str]] = {}

    def differences(self, one: Finished, planned: PlannedStage) -> list[str]:
        """Every part of the key that differs, but inputs: settings first, then source, gang and the rest."""
        found: list[str] = []
        rest: list[str] = []
        for name, part in planned.parts.items():
            old = one.parts.get(name)
            if old == part or name.startswith("input "):
                continue
            if name in one.values:
                found += self._settings(name, one, planned)
            elif name == "source":
                found += _some(list(self._changed(one.sources, planned.modules)) or ["the source changed"])
            else:
                rest.append(f"{name} {old or '-'} -> {part}")
        gone = [f"{n} {old} -> -" for n, old in one.parts.items() if n not in planned.parts and n[:6] != "input "]
        return found + rest + gone

    def _settings(self, path: str, one: Finished, planned: PlannedStage) -> list[str]:
        at = (path, one.parts[path], planned.parts[path])
        if at not in self._slices:
            old, new = self.settings.finished(one, path), self.settings.planned(planned, path)
            changed = [
                f"{leaf} {old.get(leaf, '-')} -> {new.get(leaf, '-')}"
                for leaf in (*new, *(leaf for leaf in old if leaf not in new))
                if old.get(leaf) != new.get(leaf)
            ]
            self._slices[at] = _some(changed) or [f"{path} changed"]
        return self._slices[at]

    def _changed(self, old: Mapping[str, str], modules: tuple[str, ...]) -> Iterator[str]:
        if not old:
            return
        if modules not in self._sources:
            self._sources[modules] = module_digests(modules)
        new = self._sources[modules]
        for verb, names in (
            ("changed", [name for name in new if name in old and old[name] != new[name]]),
            ("is reached now", [name for name in new if name not in old]),
            ("is reached no more", [name for name in old if name not in new]),
        ):
            yield from (f"source of {name.replace('.', '/')}.py {verb}" for name in names)


def _some(texts: list[str]) -> list[str]:
    more = len(texts) - AT_MOST
    return texts if more <= 0 else [*texts[:AT_MOST], f"and {more} more"]
