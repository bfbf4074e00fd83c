"""What MLflow shows, read from its SQLite file and put in a form that two stores can be compared in."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tests.chaos.clocks import MLFLOW_CLOCKS, TRIES

KEY = "caddie.key"
PARENT = "mlflow.parentRunId"


def runs_of(database: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Every run by what it stands for, without clocks and ids; and how many stand for something that another run
    stands for already."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
        rows = store.execute("select run_uuid, name, status, artifact_uri from runs where lifecycle_stage = 'active'")
        runs = {row[0]: {"name": row[1], "status": row[2], "uri": row[3]} for row in rows}
        for what in ("tags", "params"):
            for run in runs.values():
                run[what] = {}
            for run_id, key, value in store.execute(f"select run_uuid, key, value from {what}"):
                runs[run_id][what][key] = value
        for run in runs.values():
            run["metrics"] = {}
        for run_id, key, value, nan in store.execute("select run_uuid, key, value, is_nan from latest_metrics"):
            if not nan:
                runs[run_id]["metrics"][key] = None if MLFLOW_CLOCKS.fullmatch(key) else value
    keys = {run_id: run["tags"].get(KEY, f"without a key: {run_id}") for run_id, run in runs.items()}
    shown = {keys[run_id]: _shown(run, keys) for run_id, run in runs.items()}
    return shown, sum(number - 1 for number in Counter(keys.values()).values())


def _shown(run: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    tags = {name: value for name, value in run["tags"].items() if name not in TRIES}
    if PARENT in tags:
        tags[PARENT] = keys.get(tags[PARENT], "nobody")
    folder = Path(urlparse(run.pop("uri")).path)
    figures = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.png"))}
    return run | {"tags": tags, "figures": figures}


def view_differences(reference: dict[str, Any], database: Path) -> tuple[list[str], int]:
    """In what the runs in ``database`` differ from ``reference``, and how many are duplicates."""
    if not database.exists():
        return ["MLflow has no store"], 0
    shown, duplicates = runs_of(database)
    lines = [f"MLflow: {key} is missing" for key in sorted(reference.keys() - shown.keys())]
    lines += [f"MLflow: {key} is one too many" for key in sorted(shown.keys() - reference.keys())]
    for key in sorted(reference.keys() & shown.keys()):
        for part, value in reference[key].items():
            if shown[key][part] != value:
                lines.append(f"MLflow: {key}: {part}: {_first(value, shown[key][part])}")
    return lines + [f"MLflow: {duplicates} duplicate runs"] * bool(duplicates), duplicates


def _first(wanted: Any, found: Any) -> str:
    """The first difference of two values, in words."""
    if isinstance(wanted, dict):
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        return f"{name} is {found.get(name)!r}, not {wanted.get(name)!r}"
    return f"{found!r}, not {wanted!r}"
