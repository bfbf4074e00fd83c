"""Reads ``model/`` as text: which modules an entry point reaches, and a digest of what they say.

The same closure makes stage keys (so that an edited comment re-runs nothing) and the bundled ``train_gpt.py``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import graphlib
import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from service.errors import SpecError

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds ``model/``: the checkout, a job's working directory, or site-packages."""


def reach(modules: Iterable[str], root: Path = ROOT, without: Collection[str] = ()) -> list[str]:
    """Every first-party module that ``modules`` import, directly or not, in an order in which each follows what it
    imports; ``modules`` themselves included, and ``without`` those, and what they alone import."""
    graph: dict[str, set[str]] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in graph:
            graph[name] = set(_imports(name, root)).difference(without)
            todo += graph[name]
    try:
        return list(graphlib.TopologicalSorter({name: sorted(graph[name]) for name in sorted(graph)}).static_order())
    except graphlib.CycleError as error:
        raise SpecError(f"model/ has an import circle: {' -> '.join(error.args[1])}") from error


def modules_of(config: Any) -> set[str]:
    """The modules that define the classes inside a config."""
    found: set[str] = set()
    if isinstance(config, Mapping):
        return found.union(*(modules_of(value) for value in config.values()))
    if isinstance(config, (tuple, list)):
        return found.union(*(modules_of(item) for item in config))
    if dataclasses.is_dataclass(config):
        found.add(type(config).__module__)
        for field in dataclasses.fields(config):
            found |= modules_of(getattr(config, field.name))
    return found


def source_digest(modules: Iterable[str], root: Path = ROOT) -> str:
    """SHA-256 of the closure of ``modules`` without comments, docstrings or layout."""
    total = hashlib.sha256()
    for name in reach(sorted(modules), root):
        total.update(f"{name}\0{_meaning(name, root)}\0".encode())
    return total.hexdigest()


def module_digests(modules: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """Each module of the closure of ``modules`` with a digest of what it says, to tell which one changed."""
    said = ((name, _meaning(name, root)) for name in reach(sorted(modules), root))
    return {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in said}


def module_tree(name: str, root: Path = ROOT) -> ast.Module:
    """The syntax tree of a first-party module."""
    return ast.parse(_path(name, root).read_text(encoding="utf-8"))


def strip_docstrings(tree: ast.Module) -> ast.Module:
    """``tree`` without docstrings, also those under fields and constants."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
    return tree


@functools.cache
def _meaning(name: str, root: Path) -> str:
    return ast.unparse(strip_docstrings(module_tree(name, root)))


@functools.cache
def _imports(name: str, root: Path) -> tuple[str, ...]:
    return tuple(
        node.module
        for node in ast.walk(module_tree(name, root))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "model"
    )


def _path(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split(".")).with_suffix(".py")
    if not path.is_file():
        raise SpecError(f"module {name} is not below {root}")
    return path


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
