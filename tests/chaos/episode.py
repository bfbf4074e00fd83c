"""One episode: a home in a known state, up to three runs that are struck, one that isn't, and what must hold."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from service.faults import Point
from tests.chaos.clocks import RESULTS, differences, files, masked
from tests.chaos.cluster import MlflowServer, below, kind_of, of_kind
from tests.chaos.strikes import IN_CORPUS, IN_MLFLOW, IN_TRIALS, Kind, Strike
from tests.chaos.views import view_differences
from tests.chaos.world import Ended, Snapshot, World

CLOCKED = ("-m model train", "-m model score.sliding", "-m model score.slot")
"""Ranks whose silence is noticed: what packs has only a deadline."""
BEHIND = "MLflow is behind"
"""What a run says whose view couldn't be written; the next one does it."""
DIED = "_run_module_as_main"
"""In the traceback of a driver that met what it doesn't know; Tune prints those of trials, too."""
CLOCK = Path(__file__).parent / "clock"


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of one strike, or of the run without one that follows; a line of the log."""

    strike: Strike | None
    landed: bool = False
    """Whether there was anything to strike; what misses isn't counted."""
    exit_code: int = 0
    finished: bool = False
    """The struck command itself ended with everything done."""
    lost: int = 0
    """Finished stages that are gone or changed."""
    again: int = 0
    """Finished stages that were run again."""
    duplicates: int = 0
    left: int = 0
    """Processes that were still there."""
    repeated: bool = False
    """One more run was made, to see that it changes nothing."""
    traceback: bool = False
    took_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    said: str = ""


class Episode:
    """Plays strikes in ``world``; everything random comes from ``draw``."""

    def __init__(
        self, world: World, strikes: Sequence[Strike], draw: random.Random, keep: Callable[[], None] = lambda: None
    ) -> None:
        """``keep`` is called when something broke, while the home is still there."""
        self.world, self.strikes, self.draw, self.keep = world, strikes, draw, keep
        self.outcomes: list[Outcome] = []
        self.server: MlflowServer | None = None
        self.damaged: set[str] = set()
        self.fallen = 0
        """Strikes so far, each of which may cost a stage one try."""

    def play(self) -> list[Outcome]:
        """The outcome of each strike, and of what followed."""
        disk = any(strike.kind is Kind.DISK for strike in self.strikes)
        try:
            if disk:
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", self.world.disk], check=True)
            self.prepare()
            if any(strike.kind is Kind.MLFLOW for strike in self.strikes):
                self._serve()
            for strike in self.strikes:
                if self._struck(strike).finished:
                    break
            if not self.outcomes[-1].finished:
                self._undisturbed()
            # A record's folder begins with the day, so that a clock that jumped makes another one.
            if self.draw.random() < 1 / 4 and not any(strike.kind is Kind.CLOCK for strike in self.strikes):
                self._nothing_more()
        except Exception as error:  # the harness's own: said, kept, and gone on from
            self.outcomes = self.outcomes or [Outcome(strike=None)]
            self.outcomes[-1].problems.append(f"harness: {type(error).__name__}: {error}")
        finally:
            if self.server is not None:
                self.server.kill()
            if failed(self.outcomes):
                self.keep()
            if disk:
                subprocess.run(["umount", "-l", self.world.disk], check=True)
        return self.outcomes

    # The home that it begins with.

    def prepare(self) -> None:
        """The reference's home without some stages, and without what the strikes are about."""
        world, draw = self.world, self.draw
        shutil.rmtree(world.home, ignore_errors=True)
        shutil.copytree(world.reference, world.home)
        shutil.rmtree(world.home / "tune", ignore_errors=True)
        points = {strike.where for strike in self.strikes if strike.kind is Kind.POINT}
        for key in self._missing(points):
            for folder in ("stages", "attempts"):
                shutil.rmtree(world.home / folder / key)
        if points & set(IN_CORPUS):
            shutil.rmtree(world.home / "corpora")
        if draw.random() < 0.5:
            shutil.rmtree(world.home / "records")
        if draw.random() < 0.5:
            shutil.rmtree(world.home / "experiments")
        if points & set(IN_MLFLOW) or (Point.RUN_CHANGED not in points and draw.random() < 0.4):
            shutil.rmtree(world.home / "mlflow_artifacts")
            shutil.copy(world.folder / "empty.db", world.home / "mlflow.db")
        self.begun = world.snapshot()

    def _missing(self, points: set[str]) -> list[str]:
        """Which stages are to be computed: one to three, or all of one seed; none where only finished ones matter."""
        draw, keys = self.draw, self.world.keys
        kinds = {strike.kind for strike in self.strikes}
        if kinds <= {Kind.DAMAGE, Kind.MLFLOW} and draw.random() < 0.7:
            return []
        second = any(strike.kind is Kind.POINT and strike.number == 2 for strike in self.strikes)
        chosen = set(draw.sample(keys, 3 if second else draw.choice((1, 1, 2, 3))))
        if points & set(IN_TRIALS) or any(strike.where == "trial" for strike in self.strikes):
            chosen.add(draw.choice([key for key in keys if key.startswith("score-slot")]))
        if Kind.HANG in kinds:
            chosen.add(draw.choice([key for key in keys if not key.startswith(("pack", "audit"))]))
        others = [key for key in keys if not key.startswith("audit")]
        if all(key.startswith("audit") for key in chosen):
            chosen.add(draw.choice(others))
        return sorted(chosen)

    def _serve(self) -> None:
        """MLflow behind a server, over the store that the home has."""
        self.server = MlflowServer(self.world.folder / "server", self.world.environment)
        shutil.rmtree(self.server.folder)
        self.server.folder.mkdir()
        shutil.copy(self.world.folder / "empty.db", self.server.database)
        self.server.start()

    @property
    def _environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.server.uri} if self.server else {}

    # Runs.

    def _struck(self, strike: Strike) -> Outcome:
        outcome = Outcome(strike=strike)
        self.outcomes.append(outcome)
        before = self.world.snapshot()
        plays: dict[Kind, Callable[[Strike, Outcome], Ended]] = {
            Kind.POINT: self._point,
            Kind.PROCESS: self._process,
            Kind.HANG: self._process,
            Kind.MLFLOW: self._mlflow,
            Kind.DISK: self._disk,
            Kind.DAMAGE: self._damage,
            Kind.CLOCK: self._clock,
            Kind.TWICE: self._twice,
        }
        ended = plays[strike.kind](strike, outcome)
        self.world.arm([])
        self.fallen += outcome.landed
        self._judge(outcome, ended, before)
        if not outcome.landed and ended.exit_code != 0:
            outcome.problems.append(f"exit code {ended.exit_code} without a strike")
        expected_well = (Kind.MLFLOW, Kind.DAMAGE, Kind.CLOCK, Kind.HANG, Kind.TWICE)
        if strike.kind in expected_well and ended.exit_code != 0:
            outcome.problems.append(f"exit code {ended.exit_code}, though a run gets over that")
        by_itself = strike.kind is Kind.POINT and strike.how != "kill"
        if outcome.traceback and not by_itself:
            outcome.problems.append("a traceback")
        if ended.exit_code == 0 and self.server is None and BEHIND not in ended.err:
            self._complete(outcome)
        return outcome

    def _undisturbed(self) -> None:
        outcome = Outcome(strike=None)
        self.outcomes.append(outcome)
        if self.server is not None and self.server.process is None:
            self.server.start()
        before = self.world.snapshot()
        ended = self.world.run(**self._environment)
        self._judge(outcome, ended, before)
        if ended.exit_code != 0:
            outcome.problems.append(f"exit code {ended.exit_code} without a strike")
        else:
            self._complete(outcome)

    def _nothing_more(self) -> None:
        """The same command once more, and not a byte changes."""
        outcome = self.outcomes[-1]
        before, day = self._bytes(), date.today()
        ended = self.world.run(**self._environment)
        after = self._bytes()
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        outcome.repeated = day == date.today()
        if ended.exit_code != 0 or (changed and outcome.repeated):
            outcome.problems.append(f"one more run: exit code {ended.exit_code}, changed {changed[:5]}")

    def _bytes(self) -> dict[str, bytes]:
        home = self.world.home
        found = {name: (home / name).read_bytes() for name in files(home, (*RESULTS, "attempts", "mlflow_artifacts"))}
        # When an experiment was begun last is what a run is there to note.
        found = {name: masked(name, data) if name.startswith("experiments/") else data for name, data in found.items()}
        database = self.server.database if self.server else home / "mlflow.db"
        return found | {"mlflow.db": database.read_bytes()}

    # Deeds.

    def _point(self, strike: Strike, outcome: Outcome) -> Ended:
        self.world.arm([{"point": strike.where, "hit": int(strike.number), "do": strike.how}])
        ended = self.world.run(local=strike.local)
        outcome.landed = self.world.struck() > 0
        return ended

    def _process(self, strike: Strike, outcome: Outcome) -> Ended:
        """A signal to a process of a kind, some seconds after one was first seen; where it is gone, to the next."""
        command = self.world.start(local=strike.local)
        seen_at_s: list[float] = []

        def meanwhile() -> None:
            if outcome.landed:
                return
            there = [command.pid] if strike.where == "driver" else self._targets(strike)
            if there and not seen_at_s:
                seen_at_s.append(time.monotonic())
            if there and time.monotonic() - seen_at_s[0] >= strike.number:
                outcome.landed = self._signal(strike, self.draw.choice(there))

        return self.world.wait(command, meanwhile)

    def _targets(self, strike: Strike) -> list[int]:
        lines = below()
        if strike.kind is Kind.HANG:
            return [pid for pid, line in lines.items() if kind_of(line) == "rank" and any(w in line for w in CLOCKED)]
        return of_kind("rank" if strike.where == "raylet" else strike.where, lines)

    def _signal(self, strike: Strike, pid: int) -> bool:
        if strike.where == "raylet":
            assert self.world.cluster is not None
            return self.world.cluster.strike_node()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if strike.kind is Kind.HANG else signal.SIGKILL)
            return True
        return False

    def _mlflow(self, strike: Strike, outcome: Outcome) -> Ended:
        assert self.server is not None
        server = self.server
        if strike.where == "before":
            server.kill()
            outcome.landed = True
        command = self.world.start(MLFLOW_TRACKING_URI=server.uri)
        until_s = time.monotonic() + 4 * strike.number
        mark = self.world.hits() / f"{strike.where}.{int(strike.number)}"

        def meanwhile() -> None:
            due = time.monotonic() > until_s if strike.where == "any" else mark.exists()
            if not outcome.landed and due:
                server.kill()
                outcome.landed = True

        ended = self.world.wait(command, meanwhile)
        if BEHIND not in ended.err and strike.where in ("before", *IN_MLFLOW):
            outcome.problems.append("nothing is said of MLflow being behind")
        return ended

    def _disk(self, strike: Strike, outcome: Outcome) -> Ended:
        """A ballast file leaves so many bytes free; it is gone afterwards."""
        ballast = self.world.disk / "ballast"
        place = os.statvfs(self.world.disk)
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, place.f_bavail * place.f_frsize - int(strike.number)))
        ended = self.world.run()
        ballast.unlink()
        outcome.landed = ended.exit_code != 0 or BEHIND in ended.err
        if outcome.landed and "No space left on device" not in ended.err + ended.out:
            outcome.problems.append("nothing is said of a full disk")
        return ended

    def _damage(self, strike: Strike, outcome: Outcome) -> Ended:
        """Exactly that stage is set aside and computed again; to the same bytes, as the end of the episode shows."""
        store = self.world.home / "stages"
        there = sorted(folder.name for folder in store.iterdir())
        key = self.draw.choice(there)
        path = self._victim(store / key, strike.where)
        data = path.read_bytes()
        place = self.draw.randrange(max(1, len(data)))
        if strike.how == "delete":
            path.unlink()
        else:
            cut = data[:place]
            path.write_bytes(
                cut + bytes([data[place] ^ 1 << self.draw.randrange(8)]) + data[place + 1 :]
                if strike.how == "flip"
                else cut
            )
        outcome.landed = True
        self.damaged.add(key)
        tries = self.world.snapshot().tries
        ended = self.world.run()
        now = self.world.snapshot()
        outcome.said = f"{key}/{path.name} {strike.how} at {place} of {len(data)}"
        if now.tries.get(key, 0) != tries.get(key, 0) + 1 or key not in now.stages:
            outcome.problems.append(f"{outcome.said}: it wasn't computed again")
        if not list((self.world.home / "damaged").glob(f"{key}.*")):
            outcome.problems.append(f"{outcome.said}: it wasn't set aside")
        return ended

    def _victim(self, folder: Path, where: str) -> Path:
        own = [folder / name for name in ("report.json", "key.json", "files.json", "log.txt")]
        names = {path.name: path for path in own}
        outputs = [path for path in sorted(folder.iterdir()) if path not in own]
        if where in names and names[where].exists():
            return names[where]
        return self.draw.choice(outputs if where == "output" and outputs else sorted(folder.iterdir()))

    def _clock(self, strike: Strike, outcome: Outcome) -> Ended:
        outcome.landed = True
        if strike.where == "mtimes":
            for path in self.world.home.rglob("*"):
                if path.is_file():
                    when = path.stat().st_mtime + 3600 * strike.number
                    os.utime(path, (when, when))
            return self.world.run()
        clock = self.world.folder / "clock"
        clock.write_text(str(3600 * self.draw.uniform(-48, 48)))
        jump = threading.Timer(self.draw.uniform(2, 25), lambda: clock.write_text(str(3600 * strike.number)))
        jump.start()
        try:
            return self.world.run(local=True, PYTHONPATH=str(CLOCK), CHAOS_CLOCK=str(clock))
        finally:
            jump.cancel()

    def _twice(self, strike: Strike, outcome: Outcome) -> Ended:
        struck, other = self.world.start(), self.world.start()
        until_s = time.monotonic() + strike.number

        def meanwhile() -> None:
            if not outcome.landed and time.monotonic() > until_s and struck.poll() is None:
                struck.kill()
                outcome.landed = True

        ended = self.world.wait(other, meanwhile)
        self.world.wait(struck, meanwhile)
        return ended

    # What must hold.

    def _judge(self, outcome: Outcome, ended: Ended, before: Snapshot) -> None:
        """After every run: nothing finished is lost or run again, nobody is left, and every command ends."""
        left = self.world.left()
        now = self.world.snapshot()
        kept = before.stages.keys() - self.damaged
        lost = [key for key in kept if now.stages.get(key) != before.stages[key]]
        again = [key for key in kept if now.tries.get(key, 0) > before.tries.get(key, 0)]
        outcome.exit_code, outcome.took_s = ended.exit_code, round(ended.took_s, 1)
        outcome.lost, outcome.again, outcome.left = len(lost), len(again), len(left)
        outcome.traceback = DIED in ended.err
        outcome.problems += [f"lost: {key}" for key in lost] + [f"run again: {key}" for key in again]
        outcome.problems += [f"still there: {line[:200]}" for line in left]
        if ended.exit_code == 124:
            outcome.problems.append("the command didn't end")
        outcome.said = (outcome.said + "\n" + ended.err[-1500:]).strip()

    def _complete(self, outcome: Outcome) -> None:
        """After a run that ended well: everything is as in the reference."""
        world = self.world
        outcome.finished = True
        outcome.problems += differences(world.reference, world.home)
        outcome.problems += [f"half-done: {name}" for name in world.scratch()]
        database = self.server.database if self.server else world.home / "mlflow.db"
        lines, outcome.duplicates = view_differences(world.told["mlflow"], database)
        outcome.problems += lines
        now = world.snapshot()
        for key, tries in now.tries.items():
            own = 0 if key in self.begun.stages and key not in self.damaged else 1 + self.fallen
            if tries > self.begun.tries.get(key, 0) + own:
                outcome.problems.append(f"{key}: {tries} tries after {self.fallen} strikes")


def failed(outcomes: Sequence[Outcome]) -> list[str]:
    """Every problem of an episode."""
    return [problem for outcome in outcomes for problem in outcome.problems]


def line_of(outcome: Outcome) -> dict[str, Any]:
    """For the log."""
    line = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__ if name not in ("strike", "said")}
    line |= {"strike": outcome.strike.json if outcome.strike else None}
    return line | ({"said": outcome.said} if outcome.problems else {})
