"""What can strike a run, and a shuffled deck of it: every named point with every deed, and everything from outside."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from service.faults import Point


class Kind(StrEnum):
    """Who strikes, and how."""

    POINT = "point"
    """A named point in the code: the process that comes by is killed, finds the disk full, or raises."""
    PROCESS = "process"
    """SIGKILL from outside at a random moment."""
    MLFLOW = "mlflow"
    """MLflow's server is killed, before or while the view is written."""
    DISK = "disk"
    """A small file system that is really full."""
    DAMAGE = "damage"
    """A file of a finished stage is changed between two runs."""
    CLOCK = "clock"
    """The wall clock jumps by hours."""
    HANG = "hang"
    """A rank stops where it is."""
    TWICE = "twice"
    """The same command runs twice at once, and one of the two is killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """One strike."""

    kind: Kind
    where: str
    how: str
    number: float = 0.0
    """Which hit of a point, seconds until a signal, bytes that are free, hours that a clock jumps."""
    local: bool = False
    """On a local Ray of the driver's own and not on the cluster."""

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind} {self.where} {self.how}" + f" ({self.number:.4g})" * bool(self.number)


DEEDS = ("kill", "full", "error")
PROCESSES = {"driver": 12.0, "broker": 6.0, "gang": 5.0, "trial": 5.0, "agent": 4.0, "rank": 4.0, "raylet": 4.0}
"""What is killed from outside, and within how many seconds after it was first seen."""
IN_TRIALS = (Point.TRIAL, Point.REPORTED)
IN_CORPUS = (Point.CORPUS_TOKENIZER, Point.CORPUS_SHARD, Point.CORPUS_READY)
IN_MLFLOW = (Point.RUN_CREATED, Point.RUN_WRITTEN)
OFTEN = (
    Point.BEGUN,
    Point.TOLD,
    Point.STARTED,
    Point.ENDED,
    Point.COMPLETE,
    Point.PUBLISHED,
    Point.LOCKED,
    Point.HIRED,
)
"""Points that an episode comes by more than once."""


def deck(draw: random.Random) -> list[Strike]:
    """Some 200 strikes in random order."""
    cards = [
        *(_point(draw, point, deed) for point in Point for deed in DEEDS),
        *(_process(draw, kind) for kind in PROCESSES for _ in range(9)),
        *(Strike(kind=Kind.MLFLOW, where=where, how="kill", number=draw.randint(1, 6)) for where in SERVED * 3),
        *(
            Strike(kind=Kind.DISK, where="tmpfs", how="full", number=draw.randrange(0, 300_000, 4096))
            for _ in range(12)
        ),
        *(Strike(kind=Kind.DAMAGE, where=file, how=how) for file in DAMAGED for how in ("flip", "truncate", "delete")),
        *(Strike(kind=Kind.CLOCK, where=w, how="jump", number=draw.uniform(-48, 48)) for w in ("mtimes", "run") * 6),
        *(Strike(kind=Kind.HANG, where="rank", how="stop", number=draw.uniform(0, 3)) for _ in range(4)),
        *(Strike(kind=Kind.TWICE, where="driver", how="kill", number=draw.uniform(0, 20)) for _ in range(8)),
    ]
    draw.shuffle(cards)
    return cards


SERVED = ("before", Point.RUN_CREATED, Point.RUN_WRITTEN, "any")
"""When MLflow's server is killed: before the command, at a hit of a point, or at a random moment."""
DAMAGED = ("report.json", "key.json", "files.json", "log.txt", "output", "any")
"""Which file of a finished stage is damaged; an output is a checkpoint, an artifact, a curve or counts."""


def _point(draw: random.Random, point: Point, deed: str) -> Strike:
    hit = draw.choice((1, 1, 1, 2)) if point in OFTEN else draw.randint(1, 9) if point in IN_MLFLOW else 1
    return Strike(kind=Kind.POINT, where=str(point), how=deed, number=hit, local=draw.random() < 0.2)


def _process(draw: random.Random, kind: str) -> Strike:
    local = kind != "raylet" and draw.random() < 0.15
    return Strike(kind=Kind.PROCESS, where=kind, how="kill", number=draw.uniform(0, PROCESSES[kind]), local=local)


def episodes(seed: int) -> Iterator[list[Strike]]:
    """Endless episodes of one to three strikes, decided by ``seed``; those that need a place of their own are alone."""
    for number in range(1_000_000):
        draw = random.Random(f"{seed} deck {number}")
        apart = (Kind.MLFLOW, Kind.DISK)
        cards = deck(draw)
        mixed = [card for card in cards if card.kind not in apart]
        chains = [[card] for card in cards if card.kind in apart]
        while mixed:
            size = draw.choice((1, 2, 3, 3))
            chains.append(mixed[:size])
            mixed = mixed[size:]
        draw.shuffle(chains)
        yield from chains
