"""``python guard.py FOLDER``: when standard input closes, end every process that uses FOLDER, and remove it.

A driver that starts a local Ray holds the other end of the pipe, so the guard acts after any end of the driver, also
SIGKILL, after which Ray's own agents linger for a minute and its folder for ever. FOLDER is a fresh private one:
whoever has it in the command line or holds a file in it open belongs to that Ray. Runs as a script.
"""

import os
import shutil
import signal
import sys
import time

PATIENCE_S = 3.0
"""What Ray gets to end by itself."""
KILLING_S = 30.0
"""How long it goes on killing what is still there: what the kernel holds on to must not hold us."""

DRIVER = os.getppid()
"""Who started us: it waits for us at a normal end, and may still have one of Ray's logs open."""


def users_of(folder: str) -> list[int]:
    """The processes that have ``folder`` in their command line or hold a file in it open, but for us and the driver."""
    others = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (os.getpid(), DRIVER)]
    return [pid for pid in others if _uses(pid, folder)]


def _uses(pid: int, folder: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if folder.encode() in file.read():
                return True
        handles = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for handle in handles:
        try:
            if os.readlink(f"/proc/{pid}/fd/{handle}").startswith(folder):
                return True
        except OSError:
            continue
    return False


def clean(folder: str) -> None:
    """End the users of ``folder``, patiently and then not, and remove it; somebody else's processes stay."""
    end = time.monotonic() + PATIENCE_S
    while users_of(folder) and time.monotonic() < end:
        time.sleep(0.1)
    end, spared = time.monotonic() + KILLING_S, set[int]()
    while (left := set(users_of(folder)) - spared) and time.monotonic() < end:
        spared |= {pid for pid in left if not _kill(pid)}
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(pid: int) -> bool:
    """Kill a process; False when it isn't ours to end."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


if __name__ == "__main__":
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    sys.stdin.read()
    clean(sys.argv[1])
