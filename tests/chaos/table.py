"""The log of strikes as tables: what was injected, and what came out. docs/reliability.md is made from it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.clocks import CLOCKS, MLFLOW_CLOCKS, TRIES

TITLES = {
    "point": "named point",
    "process": "SIGKILL from outside",
    "mlflow": "MLflow's server killed",
    "disk": "file system really full",
    "damage": "damaged store entry",
    "clock": "wall clock jumps",
    "hang": "SIGSTOP",
    "twice": "two drivers, one killed",
}
HARMS = ("lost", "again", "duplicates", "left")
COLUMNS = ("strike", "where", "how", "strikes", "run went on", "rerun finished", *HARMS, "broke")
Row = tuple[str, str]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The log; empty when there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a kind and place. A run that isn't struck is counted with the strike before it."""
    rows: dict[Row, Counter[str]] = defaultdict(Counter)
    hows: dict[Row, Counter[str]] = defaultdict(Counter)
    for episode in by_episode(lines):
        last: Row | None = None
        for number, line in enumerate(episode):
            strike = line["strike"]
            if strike is not None and line["landed"]:
                last = (strike["kind"], strike["where"])
                rows[last]["strikes"] += 1
                hows[last][strike["how"]] += 1
                later = any(after["finished"] for after in episode[number + 1 :])
                rows[last]["run went on" if line["finished"] else "rerun finished" if later else "broke"] += 1
            if last is not None:
                rows[last].update({name: line[name] for name in HARMS})
                rows[last]["broke"] += bool(line["problems"])
    order = list(TITLES)
    text = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for row in sorted(rows, key=lambda row: (order.index(row[0]), row[1])):
        how = ", ".join(f"{name} {count}" for name, count in sorted(hows[row].items()))
        text.append(f"| {TITLES[row[0]]} | {row[1]} | {how} | {_cells(rows[row])} |")
    total: Counter[str] = Counter()
    for counts in rows.values():
        total.update(counts)
    text.append(f"| **all** | | | {_cells(total)} |")
    return "\n".join(text)


def _cells(counts: Counter[str]) -> str:
    return " | ".join(str(counts[name]) for name in COLUMNS[3:])


def by_episode(lines: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The lines of each episode, in their order."""
    episodes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        episodes[line["episode"]].append(line)
    return list(episodes.values())


def summary(lines: Sequence[dict[str, Any]]) -> str:
    """What was played, in one paragraph, and every invariant that broke."""
    if not lines:
        return "Nothing has been struck."
    seeds = ", ".join(sorted({str(line["seed"]) for line in lines}))
    landed = sum(line["landed"] for line in lines)
    missed = sum(line["strike"] is not None and not line["landed"] for line in lines)
    broken = [f"* episode {line['episode']}: {line['problems'][0]}" for line in lines if line["problems"]]
    said = (
        f"Seed {seeds}; {landed} strikes in {len(by_episode(lines))} episodes from {lines[0]['at']} to "
        f"{lines[-1]['at']}; {missed} more found nothing to strike any more and aren't counted. "
        f"{sum(line.get('repeated', False) for line in lines)} times the command was run once more after the end: "
        "no byte changed."
    )
    return "\n".join([said, "", *(broken or ["No invariant broke."])])


def clock_table() -> str:
    """The masked clocks, as Markdown."""
    text = ["| files | what | pattern, its groups are blanked |", "|---|---|---|"]
    for clock in CLOCKS:
        pattern = clock.pattern.decode().replace("|", "\\|")
        files = clock.files.replace("|", "\\|")
        text.append(f"| `{files}` | {clock.what} | `{pattern}` |")
    metrics = MLFLOW_CLOCKS.pattern.replace("|", "\\|")
    text.append(f"| MLflow's metrics | the same numbers; begin and end of runs, ids of runs | `{metrics}` |")
    text.append(f"| MLflow's tags | how often a stage was tried, which a strike decides | `{', '.join(TRIES)}` |")
    return "\n".join(text)


def write_into(document: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Replace what stands between the marks ``<!-- NAME -->`` and ``<!-- /NAME -->`` of ``document``."""
    text = document.read_text(encoding="utf-8")
    for name, part in (("summary", summary(lines)), ("strikes", table(lines)), ("clocks", clock_table())):
        marks = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(f"(?s){marks[0]}.*?{marks[1]}", lambda _, m=marks, p=part: f"{m[0]}\n{p}\n{m[1]}", text)
    document.write_text(text, encoding="utf-8")
