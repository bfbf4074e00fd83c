"""Which log somebody means, what it says, and following it from stage to stage. Reads notes and store only.

A log is named by words with colons between them, each of which narrows: an experiment, a stage, a seed; or by the
beginning of a stage's key, as ``caddie status`` prints it. Without an experiment the newest that fits is meant.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.job import LOG
from model.stages import Stage
from service.errors import SpecError
from service.notes import ExperimentNote
from service.ports import StageStore
from service.progress import began_s
from service.view import peek

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
    failures: tuple[Mapping[str, Any], ...]
    """What ranks died of, the first one to die first: ``rank``, ``error``, ``traceback``."""

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
            "failures": [dict(failure) for failure in self.failures],
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


def failures_of(attempt: Path) -> tuple[Mapping[str, Any], ...]:
    """What ranks died of; the first to die comes first, because the others may have died of its death."""
    found = []
    for path in (attempt / "out").glob("failure.*.json"):
        try:
            found.append((path.stat().st_mtime_ns, path.name, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return tuple(failure for _, _, failure in sorted(found, key=lambda row: row[:2]))


def is_over(attempt: Path, store: StageStore) -> bool:
    """Whether a try has failed, though its stage is still somebody's: it waits to be tried again."""
    return bool(failures_of(store.gang_of(attempt)))


def failure_lines(failures: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first failure with its traceback, the others in a line each."""
    if not failures:
        return []
    first, *others = failures
    lines = [f"rank {first['rank']} failed:", *str(first.get("traceback") or first["error"]).rstrip().splitlines()]
    return [*lines, *(f"rank {other['rank']}: {other['error']}" for other in others)]


def follow(
    entries: Sequence[Entry], store: StageStore, alive: Callable[[], bool], wait: Callable[[], None]
) -> Iterator[str]:
    """The text of ``entries`` that run, piece by piece, one stage after the other as they run; ends when none runs and
    ``alive`` says that nobody will begin another. ``wait`` passes the time between two looks."""
    by_key, seen = {one.key: one for one in entries}, set[Path]()
    while True:
        going_on = alive()  # before looking, so that what was said last is still read
        log = next(((key, log) for key, log in _of(store, by_key) if log.parent not in seen), None)
        if log is not None:
            seen.add(log[1].parent)
            yield from _stage(by_key[log[0]], log[1], store, wait)
        elif not going_on:
            return
        else:
            wait()


def _of(store: StageStore, keys: Collection[str]) -> list[tuple[str, Path]]:
    """What runs of ``keys``, that which was begun first first; not what waits to be tried again."""
    running = [(key, log) for key, log in store.running().items() if key in keys and not is_over(log.parent, store)]
    return sorted(running, key=lambda row: (began_s(row[1].parent) or 0.0, row[0]))


def _stage(one: Entry, log: Path, store: StageStore, wait: Callable[[], None]) -> Iterator[str]:
    """One stage's log until this try of it is over."""
    gang = store.gang_of(log.parent)
    together = "" if gang == log.parent else f", in the gang of {short(gang.parent.name)}"
    yield f"==> {one.title}, attempt {log.parent.name}{together}\n"
    decode, offset, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), 0, "\n"
    while True:
        going_on = store.running().get(one.key) == log and not is_over(log.parent, store)
        new = _bytes(log, offset)
        offset += len(new)
        if piece := decode.decode(new):
            text = piece
            yield piece
        if not going_on:
            break
        wait()
    if not text.endswith("\n"):
        yield "\n"
    yield from (f"{line}\n" for line in _ending(one, log, gang, store))


def _ending(one: Entry, log: Path, gang: Path, store: StageStore) -> list[str]:
    report = peek(store)(one.key)
    if report is None:
        return failure_lines(failures_of(gang)) or [f"==> {short(one.key)} ended without a result (log: {log})"]
    bpb = report.metrics.get("val_bpb")
    return [f"==> {short(one.key)} done in {report.elapsed_s:.1f} s" + ("" if bpb is None else f", val_bpb {bpb:.4f}")]


def _bytes(log: Path, offset: int) -> bytes:
    try:
        with open(log, "rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""


def _read(log: Path) -> str:
    return _bytes(log, 0).decode("utf-8", errors="replace")
