"""``python -m tests.chaos --strikes 200``: episodes until so many strikes have fallen; ``--table LOG`` shows them."""

from __future__ import annotations

import argparse
import functools
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.episode import Episode, failed, line_of
from tests.chaos.strikes import Strike, episodes
from tests.chaos.table import read_lines, summary, table, write_into
from tests.chaos.world import World


def main(words: list[str]) -> int:
    """0: every invariant held; 1: one broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--strikes", type=int, default=200, help="strikes that must have fallen; 200")
    parser.add_argument("--seed", type=int, default=None, help="of the strikes; drawn and printed by default")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/caddie-chaos"), help="where it all happens")
    parser.add_argument("--out", type=Path, default=None, help="log, a JSON line a run; one that is there is continued")
    parser.add_argument("--kinds", default="", help="only episodes with a strike of these kinds, with commas")
    parser.add_argument("--episodes", default="", help="only these episodes, by number, with commas")
    parser.add_argument("--table", type=Path, default=None, metavar="LOG", help="only print the table of a log")
    parser.add_argument("--into", type=Path, default=None, metavar="DOC", help="with --table: into docs/reliability.md")
    asked = parser.parse_args(words)
    if asked.table:
        lines = read_lines(asked.table)
        print(f"{table(lines)}\n\n{summary(lines)}")
        if asked.into:
            write_into(asked.into, lines)
        return 0
    for sign in (signal.SIGTERM, signal.SIGINT):  # a shell's background ignores the latter
        signal.signal(sign, signal.default_int_handler)
    asked.folder.mkdir(parents=True, exist_ok=True)
    out = asked.out or asked.folder / "chaos.jsonl"
    kinds, numbers = (
        set(filter(None, asked.kinds.split(","))),
        {int(n) for n in filter(None, asked.episodes.split(","))},
    )

    def wanted(number: int, chain: list[Strike]) -> bool:
        by_kind = not kinds or bool(kinds & {str(strike.kind) for strike in chain})
        return by_kind and (not numbers or number in numbers)

    last = max(numbers) if numbers else None
    return play(out, asked.strikes, _seed(out, asked.seed), asked.folder.resolve(), wanted, last)


def _seed(out: Path, asked: int | None) -> int:
    """The seed of the log that is continued, or a new one."""
    before = {line["seed"] for line in read_lines(out)}
    if asked is None:
        return int(before.pop()) if len(before) == 1 else random.SystemRandom().randrange(10**6)
    return asked


def play(
    out: Path, strikes: int, seed: int, folder: Path, wanted: Callable[[int, list[Strike]], bool], last: int | None
) -> int:
    """Episodes, up to number ``last``, until ``strikes`` have fallen, those of the log among them."""
    lines = read_lines(out)
    done = {line["episode"] for line in lines}
    fallen = sum(line["landed"] for line in lines)
    broke = sum(bool(line["problems"]) for line in lines)
    print(f"seed {seed}: {fallen} of {strikes} strikes, log {out}, folder {folder}", flush=True)
    world = World(folder)
    began, before = time.monotonic(), fallen
    try:
        world.prepare()
        for number, chain in enumerate(episodes(seed)):
            if fallen >= strikes or (last is not None and number > last):
                break
            if number in done or not wanted(number, chain):
                continue
            keep = functools.partial(_keep, world, number)
            episode = Episode(world, chain, random.Random(f"{seed} episode {number}"), keep)
            started = time.monotonic()
            try:
                episode.play()
            except KeyboardInterrupt:
                print(f"ended in episode {number}; the same command with --out {out} goes on", flush=True)
                return 130
            with open(out, "a", encoding="utf-8") as log:
                for outcome in episode.outcomes:
                    line = {"seed": seed, "episode": number, "at": time.strftime("%F %T"), **line_of(outcome)}
                    log.write(json.dumps(line) + "\n")
            fallen += sum(outcome.landed for outcome in episode.outcomes)
            problems = failed(episode.outcomes)
            if problems:
                broke += 1
            each_s = (time.monotonic() - began) / max(1, fallen - before)
            told = ", ".join(f"{o.strike}{'' if o.landed else ' missed'}" for o in episode.outcomes if o.strike)
            print(
                f"[{fallen}/{strikes}, {each_s:.0f} s each, ETA {(strikes - fallen) * each_s / 60:.0f} min] "
                f"episode {number} in {time.monotonic() - started:.0f} s: {told}"
                + "".join(f"\n    BROKEN {problem}" for problem in problems[:8]),
                flush=True,
            )
    finally:
        world.close()
    lines = read_lines(out)
    print(f"{table(lines)}\n\n{summary(lines)}")
    return int(broke > 0)


def _keep(world: World, number: int) -> None:
    """The home as it is, and what the last commands said, for whoever looks into it."""
    kept = world.folder / "broken" / str(number)
    shutil.rmtree(kept, ignore_errors=True)
    for source in (world.home, world.said):
        if source.exists():
            shutil.copytree(source, kept / source.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
