"""What two undisturbed runs of the same seeds differ in: measured clocks, and nothing else. The only list of it.

A file is compared byte for byte after the groups of these patterns are blanked in it. Whatever isn't listed here, as
weights, digests, scores, tables and code, must be equal to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NUMBER = rb"([-+\d.e]+)"
FILE = rb'\{\s*"sha256": "([0-9a-f]+)",\s*"size_bytes": (\d+)\s*\}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """One kind of place that a clock gets into."""

    files: str
    """Regular expression of paths below the home folder."""
    pattern: bytes
    """Its groups are blanked."""
    what: str

    def blank(self, data: bytes) -> bytes:
        """``data`` with ``~`` for what the groups match."""
        return re.sub(self.pattern, _blanked, data, flags=re.M)


def _blanked(match: re.Match[bytes]) -> bytes:
    text, begin = b"", match.start()
    for group in range(1, match.re.groups + 1):
        start, end = match.span(group)
        text, begin = text + match.string[begin:start] + b"~", end
    return text + match.string[begin : match.end()]


METRICS = rb'"(?:elapsed_s|train_s|eval_s|audit_s|step_avg_ms|tokens_per_s)": ' + NUMBER
LINES = rb"(?:train_time|step_avg|eval_time):([\d.]+)ms"
CLOCKS = (
    Clock(files=r"stages/[^/]+/report\.json", pattern=METRICS, what="seconds that a stage took, and its speed"),
    Clock(files=r"stages/[^/]+/key\.json", pattern=rb'"gang_s": ' + NUMBER, what="seconds that its gang was held"),
    Clock(files=r"stages/[^/]+/key\.json", pattern=rb'"company": (\d+)', what="how many stages shared that gang"),
    Clock(files=r"stages/[^/]+/log\.txt", pattern=LINES, what="times in the log's lines"),
    Clock(
        files=r"stages/audit-[^/]+/log\.txt",
        pattern=rb"([\d.]+) s (?:of CPU time|a pass)",
        what="times in an audit's log",
    ),
    Clock(
        files=r"stages/[^/]+/files\.json",
        pattern=rb'"(?:report\.json|key\.json|log\.txt)": ' + FILE,
        what="digests and sizes of the three files above",
    ),
    Clock(files=r"records/[^/]+/train_seed\d+\.log", pattern=LINES, what="times in the log's lines"),
    Clock(files=r"records/[^/]+/reports\.json", pattern=METRICS, what="seconds that a stage took, and its speed"),
    Clock(
        files=r"records/[^/]+/reports\.json",
        pattern=rb'"train_seed\d+\.log": ' + FILE,
        what="digests and sizes of those logs",
    ),
    Clock(
        files=r"records/[^/]+/submission\.json",
        pattern=rb'"(?:step_avg_ms|train_time_s|eval_time_s|slowest_s)": ' + NUMBER,
        what="seconds of training and evaluation, by seed and the slowest, and milliseconds a step",
    ),
    Clock(
        files=r"records/[^/]+/README\.md",
        pattern=rb"^\| (?:\d+|mean|sd \(n - 1\)) \| [^|]+ \| ([^|]+) \|(?: [^|]+ \|)+? ([^|]+) \| ([^|]+) \|$",
        what="the same as columns: ms/step, train s, eval s",
    ),
    Clock(
        files=r"records/[^/]+/README\.md",
        pattern=rb"(?:train|eval)_under_cap: ([\d.]+) s .* in the slowest seed, (\d+);",
        what="the same in two verdicts, with the seed that was slowest",
    ),
    Clock(
        files=r"records/[^/]+/(?:reports|submission)\.json",
        pattern=rb'"date": "(\d{4}-\d\d-\d\d)"',
        what="the day; it also begins the record folder's name",
    ),
    Clock(files=r"experiments/[^/]+\.json", pattern=rb'"started_s": ' + NUMBER, what="when it was begun last"),
)
"""In files below the home folder."""
MLFLOW_CLOCKS = re.compile(r"time/.*|.*/(train_s|eval_s|step_avg_ms|tokens_per_s)")
"""Metrics in MLflow that are clocks; begin and end of its runs are, too."""
TRIES = ("caddie.attempt", "caddie.attempts")
"""Tags that count tries, and so what was struck. Bounded apart."""
RESULTS = ("stages", "records", "experiments", "corpora")
"""Folders below the home folder whose every file counts; the others hold tries, locks and Ray Tune's own state."""


def masked(name: str, data: bytes) -> bytes:
    """``data`` of the file ``name`` without its clocks."""
    for clock in CLOCKS:
        if re.fullmatch(clock.files, name):
            data = clock.blank(data)
    return data


def files(home: Path, folders: tuple[str, ...] = RESULTS) -> Iterator[str]:
    """Every file below ``folders``, hidden ones too, but for the marks of who runs."""
    for folder in folders:
        for path in sorted((home / folder).rglob("*")):
            if path.is_file() and not path.name.endswith(".running"):
                yield str(path.relative_to(home))


def undated(name: str) -> str:
    """``name`` without the day that a record's folder begins with."""
    return re.sub(r"^records/\d{4}-\d\d-\d\d_", "records/", name)


def differences(reference: Path, home: Path) -> list[str]:
    """In what the results in ``home`` differ from those in ``reference``, clocks aside; a line a file.

    Where the day changed there are two record folders, and each must be equal.
    """
    wanted = {undated(name): masked(name, (reference / name).read_bytes()) for name in files(reference)}
    found = set()
    lines = []
    for name in files(home):
        found.add(undated(name))
        if undated(name) not in wanted:
            lines.append(f"{name} is one too many")
        elif masked(name, (home / name).read_bytes()) != wanted[undated(name)]:
            lines.append(f"{name} differs")
    return lines + [f"{name} is missing" for name in sorted(wanted.keys() - found)]
