"""Following logs as they grow, from stage to stage. Reads the store only."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from service.failures import failures_of
from service.logs import Entry, failure_lines, is_over, read_bytes, short
from service.ports import StageStore
from service.progress import began_s


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
        new = read_bytes(log, offset)
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
    report = store.peek(one.key)
    if report is None:
        return failure_lines(failures_of(gang)) or [f"==> {short(one.key)} ended without a result (log: {log})"]
    bpb = report.metrics.get("val_bpb")
    return [f"==> {short(one.key)} done in {report.elapsed_s:.1f} s" + ("" if bpb is None else f", val_bpb {bpb:.4f}")]
