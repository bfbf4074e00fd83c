"""Which log somebody means, and what it says. Reads notes and store only.

A log is named by words with colons between them, each of which narrows: an experiment, a stage, a seed; or by the
beginning of a stage's key, as ``caddie status`` prints it. Without an experiment the newest that fits is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.job import LOG
from model.stages import Stage
from service.errors import SpecError
from service.failures import RankFailure, failures_of
from service.notes import ExperimentNote
from service.ports import StageStore
from service.progress import began_s

KINDS = {name: str(stage) for stage in Stage for name in (str(stage), stage.replace(".", "-"))}
SHORT = 6
"""Digits of a key's digest that people are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One stage that somebody may ask for."""

    key: str
    stage: str
    seed: int | None
    """None for what no experiment noted, as an audit."""
    note: ExperimentNote | None

    @property
    def title(self) -> str:
        """``train-3f9ab2 of seed 42, slot-tiny``."""
        whose = f", {self.note.name}" if self.note else ""
        return short(self.key) + ("" if self.seed is None else f" of seed {self.seed}") + whose


def short(key: str) -> str:
    """A key as people see it and may paste it."""
    kind, _, digits = key.rpartition("-")
    return f"{kind}-{digits[:SHORT]}"


def entries_of(notes: Sequence[ExperimentNote], store: StageStore) -> list[Entry]:
    """Every stage that is known, those of the experiment that was begun last first."""
    found: dict[tuple[str, str], Entry] = {}
    for note in sorted(notes, key=lambda note: (-note.started_s, note.id)):
        for config in note.configs:
            for seed, keys in config.seeds.items():
                for stage, key in keys.items():
                    found.setdefault((note.id, key), Entry(key=key, stage=str(stage), seed=seed, note=note))
    noted = {key for _, key in found}
    for key in sorted({*store.running(), *store.published()} - noted):
        found["", key] = Entry(key=key, stage=KINDS.get(key.rpartition("-")[0], ""), seed=None, note=None)
    return list(found.values())


def choose(what: str, entries: Sequence[Entry]) -> list[Entry]:
    """What ``what`` names, all of one experiment; everything of the newest one when it is empty.

    Raises:
        SpecError: nothing is called so; the message says what is there.
    """
    left = list(entries)
    for word in filter(None, what.split(":")):
        kept = _narrowed(word, left)
        if not kept:
            raise SpecError(f"{what!r}: no log for {word!r}; there is {_there(left)}")
        left = kept
    if not left:
        raise SpecError("nothing has been run here; start with: caddie sweep slot")
    first = left[0].note
    return [one for one in left if one.note is first or (one.note and first and one.note.id == first.id)]


def _narrowed(word: str, entries: Sequence[Entry]) -> list[Entry]:
    if named := [one for one in entries if one.note and word in (one.note.name, one.note.id)]:
        return named
    if word.isdecimal():
        return [one for one in entries if one.seed == int(word)]
    if word in KINDS:
        return [one for one in entries if one.stage == KINDS[word]]
    return [one for one in entries if one.key.startswith(word)]


def _there(entries: Sequence[Entry]) -> str:
    """Experiments, stages and seeds; a word of each narrows."""
    experiments = dict.fromkeys(one.note.name for one in entries if one.note)
    stages = dict.fromkeys(one.stage for one in entries if one.stage)
    seeds = dict.fromkeys(str(one.seed) for one in entries if one.seed is not None)
    kinds = (("experiment", experiments), ("stage", stages), ("seed", seeds))
    found = [f"{name} {', '.join(list(names)[:8])}{' ...' if len(names) > 8 else ''}" for name, names in kinds if names]
    return "; ".join(found) or "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One try of one stage."""

    entry: Entry
    state: str
    """``done``, ``running``, ``failed`` or ``interrupted``."""
    attempt: int
    """0 where this store knows of no try."""
    log: Path
    gang: str
    """Key of the stage whose gang did its work, when that was another's."""
    failures: tuple[RankFailure, ...]
    """What ranks died of, the first one to die first."""

    @property
    def text(self) -> str:
        """What the log says; empty while there is none."""
        return _read(self.log)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        one = self.entry
        return {
            "key": one.key,
            "stage": one.stage,
            "seed": one.seed,
            "experiment": one.note.name if one.note else None,
            "state": self.state,
            "attempt": self.attempt,
            "log": str(self.log),
            "gang_of": self.gang or None,
            "lines": self.text.splitlines(),
            "failures": [asdict(failure) for failure in self.failures],
        }


def newest(entries: Sequence[Entry], store: StageStore) -> Entry:
    """The one of ``entries`` that runs now, else the one that was tried last.

    Raises:
        SpecError: none has been tried.
    """
    running = store.running()
    begun = [(one.key in running, _begun_s(one, store), one) for one in entries]
    tried = [row for row in begun if row[1] is not None]
    if not tried:
        raise SpecError(f"nothing of it has begun: {', '.join(one.title for one in entries[:4])}")
    return max(tried, key=lambda row: (row[0], row[1] or 0.0))[2]


def _begun_s(one: Entry, store: StageStore) -> float | None:
    tries = store.tries(one.key)
    return began_s(tries[-1] if tries else store.folder(one.key))


def shown(one: Entry, store: StageStore, attempt: int | None = None) -> Shown:
    """A try of a stage, the newest unless ``attempt`` says which.

    Raises:
        SpecError: there was no such try.
    """
    tries = {int(folder.name): folder for folder in store.tries(one.key)}
    last = max(tries, default=0)
    number = last if attempt is None else attempt
    if attempt is not None and attempt not in tries:
        raise SpecError(f"{one.title} has no attempt {attempt}; there is {', '.join(map(str, tries)) or 'none'}")
    finished = number == last and one.key in store.published()
    folder = tries.get(number, store.folder(one.key))
    gang = store.gang_of(folder) if number else folder
    own = store.folder(one.key) / LOG if finished else folder / LOG
    failures = () if finished else failures_of(gang)
    running = number == last and one.key in store.running()
    return Shown(
        entry=one,
        state="done" if finished else "failed" if failures else "running" if running else "interrupted",
        attempt=number,
        # What the ranks print themselves goes to the first of those that share a gang; so do their last words.
        log=gang / LOG if failures or not own.exists() else own,
        gang="" if gang == folder else gang.parent.name,
        failures=failures,
    )


def is_over(attempt: Path, store: StageStore) -> bool:
    """Whether a try has failed, though its stage is still somebody's: it waits to be tried again."""
    return bool(failures_of(store.gang_of(attempt)))


def failure_lines(failures: Sequence[RankFailure]) -> list[str]:
    """The first failure with its traceback, the others in a line each."""
    if not failures:
        return []
    first, *others = failures
    lines = [f"rank {first.rank} failed:", *(first.traceback or first.error).rstrip().splitlines()]
    return [*lines, *(f"rank {other.rank}: {other.error}" for other in others)]


def read_bytes(log: Path, offset: int) -> bytes:
    """What a log says from ``offset`` on; nothing while it isn't there."""
    try:
        with open(log, "rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""


def _read(log: Path) -> str:
    return read_bytes(log, 0).decode("utf-8", errors="replace")
