"""One stage under torchrun as child processes: the command, the watch over it, and nobody left alive afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from model.job import LOG
from service.adapters import leash
from service.adapters.watchdog import LOOK_S, Stopped, Watchdog
from service.faults import Point, fault
from service.source import ROOT

TORCHRUN = "torchrun.txt"
"""What torchrun itself says, beside the ranks' log."""
GRACE_S = 5.0
"""From SIGTERM to SIGKILL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How the gang's processes ended."""

    exit_code: int
    """Negative: the signal that killed torchrun."""
    stopped: Stopped | None = None
    """Why the watchdog ended it; None: it ended by itself."""


def torchrun_command(stage: str, ranks: int, job: Path, out: Path, log: Path) -> list[str]:
    """The command line of one stage; both torchrun and every rank are on a leash, the rendezvous port is free. Ranks
    print into ``log``, torchrun itself does not: of a rank that is killed after its result it says a page."""
    on_leash = [sys.executable, "-SE", leash.__file__]
    return [
        *(*on_leash, "TERM", sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={ranks}", "--max-restarts=0", "--no-python"),
        *(*on_leash, "KILL", f"--into={log}"),
        *(sys.executable, "-m", "model", stage, "--job", str(job), "--out", str(out)),
    ]


def add_torchrun_s_words(attempt: Path) -> None:
    """After a failure: what torchrun itself said comes to the end of the ranks' log."""
    with contextlib.suppress(OSError), open(attempt / LOG, "ab") as log:
        log.write((attempt / TORCHRUN).read_bytes())


def gang_environment(threads: int) -> dict[str, str]:
    """This process's environment for the ranks: our source first, the gang's thread count, unbuffered output."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # A rank has nothing to tell the world, so it isn't told where.
    return {name: value for name, value in os.environ.items() if name != "CADDIE_WEBHOOK_URL"} | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "LEASH_PARENT": str(os.getpid()),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


async def run_gang(command: list[str], threads: int, log: Path, watchdog: Watchdog) -> Ended:
    """Run ``command`` with its output in ``log``; ends its whole process group when ``watchdog`` says so, on
    cancellation and on error."""
    with open(log, "ab") as sink:
        # Spawned by the event loop's own thread: the leash is tied to the thread that forks, and this one lasts.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=asyncio.subprocess.STDOUT,
            env=gang_environment(threads),
            cwd=log.parent,
            start_new_session=True,
        )
    stopped = None
    over = asyncio.ensure_future(process.wait())
    try:
        fault(Point.STARTED)
        while stopped is None and not (await asyncio.wait({over}, timeout=LOOK_S))[0]:
            stopped = watchdog.look()
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(process))
    assert process.returncode is not None
    await over
    return Ended(exit_code=process.returncode, stopped=stopped)


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM lets torchrun end its ranks, in other sessions; SIGKILL follows, and the leash does the rest."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_S)
            return
