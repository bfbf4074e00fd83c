"""What the world outside is told of an experiment: that it began, and how it ended. docs/webhook.md is the document."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.ports import Announcer
from service.results import GroupResult

LONGEST_ERROR = 1000
MOST_ERRORS = 10
PATIENCE_S = 15.0
"""How long a command that has ended waits for its last document to be sent: two tries of 5 s, and one before it."""


@dataclass(kw_only=True, slots=True)
class Ending:
    """What the body of :func:`announced` leaves to be told."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    """As :func:`service.summary.summary_json` gives it; empty where it didn't come to that."""
    errors: Sequence[str] = ()

    def tell(self, summary: Mapping[str, Any], errors: Sequence[str]) -> None:
        """Leave what is known now."""
        self.summary, self.errors = summary, errors


def document(event: str, experiment: str, ending: Ending) -> dict[str, Any]:
    """One document; every field is always there, null where it isn't known."""
    summary, errors = ending.summary, [error[:LONGEST_ERROR] for error in ending.errors[:MOST_ERRORS]]
    winner = summary.get("winner") or {}
    return {
        "event": event,
        "experiment": experiment,
        "text": _text(event, experiment, summary, errors),
        "winner": winner.get("config"),
        "score": winner.get("score"),
        "mean_bpb": winner.get("mean_bpb"),
        "sd_bpb": winner.get("sd_bpb"),
        "n": winner.get("n"),
        "leaks": winner.get("leaks"),
        "gpu_hours": summary.get("gpu_hours"),
        "usd": summary.get("usd"),
        "elapsed_s": summary.get("elapsed_s"),
        "record": summary.get("record"),
        "verified": summary.get("verified"),
        "errors": errors,
    }


def _text(event: str, experiment: str, summary: Mapping[str, Any], errors: Sequence[str]) -> str:
    """One line for people: ``slot-tiny finished: lr=0.004, val_bpb 2.2808 ± 0.0074 (n=3), 0.12 USD``."""
    parts, winner = [], summary.get("winner")
    if winner:
        sd = "" if winner["sd_bpb"] is None else f" ± {winner['sd_bpb']:.4f}"
        leaks = " LEAKS" if winner["leaks"] else ""
        parts.append(f"{winner['config']}, val_bpb {winner['mean_bpb']:.4f}{sd} (n={winner['n']}){leaks}")
    if summary:
        parts.append(f"{summary['usd']:.2f} USD")
    parts += [error.splitlines()[0] for error in errors[:1] if error]
    return f"{experiment} {event}" + (f": {', '.join(parts)}" if parts else "")


def errors_of(groups: Sequence[GroupResult]) -> list[str]:
    """Why seeds failed, each with its config and seed."""
    every = (*groups, *(group.confirmed for group in groups if group.confirmed))
    return [f"{group.title}, seed {one.seed}: {one.error}" for group in every for one in group.failed]


@contextlib.contextmanager
def announced(announcer: Announcer | None, experiment: str) -> Iterator[Ending]:
    """Tell that ``experiment`` begins, and when the block ends how it ended: ``finished``, ``failed``, or, by Ctrl-C
    and SIGTERM, ``interrupted``. Nothing that goes wrong with the telling reaches the block."""
    ending, sending = Ending(), _Sending(announcer)
    sending.send(document("began", experiment, ending))
    event = "failed"
    try:
        yield ending
        event = "failed" if ending.errors else "finished"
    except KeyboardInterrupt:
        event = "interrupted"
        raise
    except BaseException as error:
        ending.errors = [*ending.errors, str(error) or type(error).__name__]
        raise
    finally:
        sending.send(document(event, experiment, ending))
        sending.wait()


class _Sending:
    """Sends in the order of asking and beside the work: a server that hangs must not hold up what begins."""

    def __init__(self, announcer: Announcer | None) -> None:
        self.announcer = announcer
        self.last: threading.Thread | None = None

    def send(self, what: Mapping[str, Any]) -> None:
        announcer, before = self.announcer, self.last
        if announcer is None:
            return

        def post() -> None:
            if before is not None:
                before.join()
            announcer.post(what)

        self.last = threading.Thread(target=post, daemon=True, name="announce")
        self.last.start()

    def wait(self) -> None:
        if self.last is not None:
            self.last.join(timeout=PATIENCE_S)
