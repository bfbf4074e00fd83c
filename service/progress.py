"""How far a stage is that runs now, from the end of its log alone. Only reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from service.history import START_S

TAIL_BYTES = 65_536
"""How much of a log's end is read."""
STEP = re.compile(r"step:(\d+)/(\d+) (?:train_loss:([\d.]+) )?.*train_time:(\d+)ms")
SCORED = re.compile(r"scored:(\d+)% running_bpb:([\d.]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What the end of a log tells."""

    part: float = 0.0
    """Finished part of the steps, or of the stream; 0 while nothing is known."""
    step: str = ""
    """``150/300``, of a training."""
    loss_nats: float | None = None
    """Training loss of that step."""
    val_bpb: float | None = None
    """Of what is scored so far."""
    left_s: float | None = None
    """Of a training, by its own clock; None where the log tells no time."""


def progress(log: Path | None) -> Progress:
    """How far the stage is whose log this is: by its last step, else by how much of the stream it has scored."""
    text = tail(log)
    if steps := STEP.findall(text):
        step, of, loss, ms = steps[-1]
        part = int(step) / int(of)
        left_s = int(ms) / 1000 * (1 - part) / part
        return Progress(part=part, step=f"{step}/{of}", loss_nats=float(loss) if loss else None, left_s=left_s)
    if scored := SCORED.findall(text):
        return Progress(part=int(scored[-1][0]) / 100, val_bpb=float(scored[-1][1]))
    return Progress()


def step_progress(log: Path | None) -> tuple[float, float | None]:
    """The finished part of a training that is under way, and the seconds it takes in all, from its last log line."""
    lines = STEP.findall(tail(log))
    if not lines:
        return 0.0, None
    step, steps, ms = (int(lines[-1][place]) for place in (0, 1, 3))
    return step / steps, ms / 1000 * steps / step + START_S


def score_progress(log: Path | None) -> tuple[float, str]:
    """The part of the stream that is scored, and the running val_bpb of it, from the last such line of the log."""
    lines = SCORED.findall(tail(log))
    return (int(lines[-1][0]) / 100, lines[-1][1]) if lines else (0.0, "")


def last_line(log: Path) -> str:
    """The last line of a log that says something; empty while there is none."""
    return next((line.strip() for line in reversed(tail(log).splitlines()) if line.strip()), "")


def tail(log: Path | None) -> str:
    """The end of a log; empty while there is none."""
    if log is None:
        return ""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def began_s(attempt: Path) -> float | None:
    """Unix time at which a try began: of its oldest file, which is its job; None when it isn't there."""
    try:
        return min(path.stat().st_mtime for path in (attempt, *attempt.iterdir()))
    except OSError:
        return None


def spoke_s(log: Path) -> float | None:
    """Unix time at which a log got its last line; None while there is none."""
    try:
        return log.stat().st_mtime
    except OSError:
        return None
