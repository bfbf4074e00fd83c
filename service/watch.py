"""Live progress of an experiment: a table in a terminal, lines elsewhere. It only reads the store, from a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from model.report import StageReport
from model.stages import Stage
from service.contest import out_of_race
from service.errors import StoreError
from service.experiment import Contender, Experiment
from service.history import START_S
from service.ports import StageStore
from service.progress import score_progress, step_progress
from service.results import GroupResult, SeedResult
from service.spec import slug
from service.stats import Sample, spread

LOOK_S = 1.0
HEARTBEAT_S = 20.0
"""How long plain output may be silent."""


class Board:
    """What is known while stages run: reports by key, and how far the running ones are."""

    def __init__(self, experiment: Experiment, store: StageStore) -> None:
        self.experiment, self.store = experiment, store
        self.reports: dict[str, StageReport] = {}
        self.fresh: set[str] = set()
        self.running: Mapping[str, Path] = {}
        self._expected: tuple[Any, dict[str, tuple[Stage, int]]] = (None, {})
        self.started = time.monotonic()
        self.refresh()
        self.fresh.clear()

    def refresh(self) -> list[str]:
        """Look again; the keys that have finished since."""
        new = []
        with contextlib.suppress(StoreError):  # those who compute meet it, too, and say so
            published = self.store.published()
            for key in self.experiment.stages:
                if key not in self.reports and key in published:
                    report = self.store.find(key)
                    if report is not None:
                        self.reports[key] = report
                        new.append(key)
            self.running = {key: log for key, log in self.store.running().items() if key in self.experiment.stages}
        self.fresh.update(new)
        return new

    def show(self, experiment: Experiment) -> None:
        """Go on with ``experiment``, which has more contenders now."""
        self.experiment = experiment

    @property
    def expected(self) -> dict[str, tuple[Stage, int]]:
        """The stages that are done or will be run: without those of whom a race has stopped."""
        experiment = self.experiment
        if experiment.race is None:
            return experiment.stages
        if self._expected[0] != len(self.reports):
            stopped = out_of_race(experiment, [self._group(contender) for contender in experiment.contenders])
            left = [one for i, one in enumerate(experiment.contenders) if i not in stopped]
            wanted = {planned.key for one in left for plan in one.plans.values() for planned in plan}
            found = {key: at for key, at in experiment.stages.items() if key in wanted or key in self.reports}
            self._expected = len(self.reports), found
        return self._expected[1]

    def _group(self, contender: Contender) -> GroupResult:
        """A contender as far as it was seen."""
        seeds = {}
        for seed, plan in contender.plans.items():
            reports = {planned.stage: self.reports[planned.key] for planned in plan if planned.key in self.reports}
            seeds[seed] = SeedResult(seed=seed, plan=plan, reports=reports)
        return GroupResult(spec=contender.spec, overlay=contender.overlay, seeds=seeds, headline=contender.headline)

    def sample(self, contender: Contender) -> Sample:
        """The headline of the seeds that have it."""
        found = {}
        for seed, plan in contender.plans.items():
            key = next(planned.key for planned in plan if planned.stage is contender.headline)
            if key in self.reports:
                found[seed] = self.reports[key].metrics["val_bpb"]
        return Sample(values=found)

    def eta_s(self) -> tuple[float, bool]:
        """Seconds left at the present pace, and whether that is all: a kind of stage never seen counts nothing, and
        neither do trials that aren't proposed yet."""
        seen: dict[Stage, list[float]] = defaultdict(list)
        for key, report in self.reports.items():
            seen[self.experiment.stages[key][0]].append(report.elapsed_s + START_S)
        left, whole = 0.0, not self.experiment.to_propose
        for key, (stage, _) in self.expected.items():
            if key in self.reports:
                continue
            log = self.running.get(key)
            part, estimate = step_progress(log) if stage is Stage.TRAIN else (score_progress(log)[0], None)
            if seen[stage]:
                estimate = sum(seen[stage]) / len(seen[stage])
            left += (estimate or 0.0) * (1 - part)
            whole &= estimate is not None
        return left / max(1, len(self.running)), whole

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


def table(board: Board) -> Group:
    """Config by config: seeds done, mean and spread, difference to the base on the same seeds."""
    experiment = board.experiment
    grid = Table(title=f"caddie: {experiment.name}", title_justify="left", expand=False)
    for name in ("config", "score", "seeds", "val_bpb, mean ± sd (n-1)", "vs base"):
        grid.add_column(name, justify="left" if name in ("config", "score") else "right")
    base = board.sample(experiment.base)
    for contender in experiment.contenders:
        sample = board.sample(contender)
        paired = sample.minus(base)
        versus = f"{paired.mean:+.4f}" if paired.n and contender is not experiment.base else ""
        name = slug(contender.overlay)[:36]
        grid.add_row(name, contender.headline, f"{sample.n}/{len(contender.plans)}", spread(sample), versus)
    return Group(grid, Text(now_line(board)))


def now_line(board: Board) -> str:
    """``12/24 stages, 1 min 5 s, ETA 2 min; now train s42 33%, score.slot s1337 40% 2.2912``."""
    parts = []
    for key, log in board.running.items():
        stage, seed = board.experiment.stages[key]
        part, running = (step_progress(log)[0], "") if stage is Stage.TRAIN else score_progress(log)
        parts.append(f"{stage} s{seed}" + (f" {100 * part:.0f}%" if part else "") + (f" {running}" if running else ""))
    eta, whole = board.eta_s()
    left = f"ETA {'' if whole else 'over '}{clock(eta)}" if eta else "ETA unknown"
    done = f"{len(board.reports)}/{len(board.expected)} stages, {clock(board.elapsed_s())}, {left}"
    if board.experiment.to_propose:
        done += f", {board.experiment.to_propose} trials not proposed yet"
    return done + (f"; now {', '.join(parts[:3])}" if parts else "; starting")


def clock(seconds: float) -> str:
    """``1 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def watch(experiment: Experiment, store: StageStore, console: Console) -> Iterator[Callable[[Experiment], None]]:
    """Show progress on ``console`` until the block ends; gives what is called when the experiment has grown."""
    board = Board(experiment, store)
    over = threading.Event()
    show_loop = _live if console.is_terminal else _plain
    thread = threading.Thread(target=show_loop, args=(board, console, over), daemon=True, name="watch")
    thread.start()
    try:
        yield board.show
    finally:
        over.set()
        thread.join(timeout=10)


def _live(board: Board, console: Console, over: threading.Event) -> None:
    with Live(table(board), console=console, refresh_per_second=2, transient=True) as live:
        while not over.wait(LOOK_S):
            board.refresh()
            live.update(table(board))


def _plain(board: Board, console: Console, over: threading.Event) -> None:
    spoken = time.monotonic()
    while True:
        ended = over.wait(LOOK_S)
        for key in board.refresh():
            stage, seed = board.experiment.stages[key]
            report, spoken = board.reports[key], time.monotonic()
            score = f"  val_bpb {report.metrics['val_bpb']:.4f}" if "val_bpb" in report.metrics else ""
            console.print(
                f"[{board.elapsed_s():5.0f} s] {stage} seed {seed} done in {report.elapsed_s:.1f} s{score}",
                highlight=False,
                markup=False,
            )
        if ended:
            return
        if time.monotonic() - spoken > HEARTBEAT_S:
            spoken = time.monotonic()
            console.print(
                f"[{board.elapsed_s():5.0f} s] {now_line(board)}", highlight=False, markup=False, soft_wrap=True
            )


def now_and_then(console: Console, name: str, now: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """What to call as runs of ``name`` are brought to MLflow: a line for each ``HEARTBEAT_S`` that it takes."""
    spoken = now()

    def seen(done: int, total: int) -> None:
        nonlocal spoken
        if now() - spoken > HEARTBEAT_S:
            spoken = now()
            console.print(f"MLflow: {done} of {total} runs of {name}", highlight=False, markup=False, soft_wrap=True)

    return seen
