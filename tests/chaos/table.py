"""The log of strikes as a table: what was injected, and what came out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TITLES = {
    "point": "named point",
    "process": "SIGKILL from outside",
    "mlflow": "MLflow's server killed",
    "disk": "file system really full",
    "damage": "damaged store entry",
    "clock": "wall clock jumps",
    "hang": "SIGSTOP of a rank",
    "twice": "two drivers, one killed",
}
COLUMNS = ("strike", "where", "how", "count", "run went on", "rerun finished", "lost", "again", "duplicates", "left")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The log; empty when there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(lines: Iterable[dict[str, Any]]) -> str:
    """Markdown: a row a kind, place and deed. The four counts of harm are those of the strike's run and, for its
    episode's last strike, of the run without one that followed."""
    rows: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    last: dict[int, tuple[str, str, str]] = {}
    broken: list[str] = []
    for line in lines:
        strike = line["strike"]
        if strike is not None and line["landed"]:
            last[line["episode"]] = (strike["kind"], strike["where"], strike["how"])
            rows[last[line["episode"]]]["count"] += 1
            rows[last[line["episode"]]]["run went on" if line["finished"] else "rerun finished"] += 1
        if line["episode"] in last:
            for name in ("lost", "again", "duplicates", "left"):
                rows[last[line["episode"]]][name] += line[name]
        if line["problems"]:
            broken.append(f"episode {line['episode']}: {line['problems'][0]}")
    order = list(TITLES)
    keys = sorted(rows, key=lambda key: (order.index(key[0]), key[1:]))
    text = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    text += [
        f"| {TITLES[key[0]]} | {key[1]} | {key[2]} | {' | '.join(str(rows[key][name]) for name in COLUMNS[3:])} |"
        for key in keys
    ]
    total = {name: sum(row[name] for row in rows.values()) for name in COLUMNS[3:]}
    text.append(f"| **all** | | | {' | '.join(f'**{total[name]}**' for name in COLUMNS[3:])} |")
    return "\n".join([*text, "", *(broken or ["No invariant broke."])])
