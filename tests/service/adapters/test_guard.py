from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.adapters import guard
from service.adapters.guard import PATIENCE_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

Alive = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object], float, str], None]

# A driver that starts the guard and, as Ray would, a process that names the folder and one that has a log open in it.
DRIVER = """
import subprocess, sys
guard, folder = sys.argv[1:]
watch = subprocess.Popen([sys.executable, "-SE", guard, folder], stdin=subprocess.PIPE, start_new_session=True)
named = ["sh", "-c", "trap '' TERM INT; while :; do sleep 1; done", folder]
subprocess.Popen(named, start_new_session=True)
with open(folder + "/log", "w") as log:
    subprocess.Popen(["sleep", "1000"], stdout=log, start_new_session=True)
print("up", flush=True)
sys.stdin.read()
"""


def start_driver(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, guard.__file__, str(folder)]
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "up\n"
    return driver


def test_a_killed_driver_leaves_neither_processes_nor_the_folder(tmp_path: Path, alive: Alive, until: Until) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    bystander = subprocess.Popen(["sleep", "1000"], cwd=tmp_path)
    with start_driver(folder) as driver:
        assert len(alive()) >= 5
        driver.kill()
        driver.wait()
        until(lambda: [process.pid for process in alive()] == [bystander.pid], PATIENCE_S + 3, "only the bystander")
    assert not folder.exists()
    bystander.kill()
    bystander.wait()


def test_without_users_the_folder_goes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    (folder / "session" / "logs").mkdir(parents=True)
    (folder / "session" / "logs" / "raylet.log").write_text("x")
    started = time.monotonic()
    subprocess.run([sys.executable, "-SE", guard.__file__, str(folder)], stdin=subprocess.DEVNULL, check=True)
    assert not folder.exists()
    assert time.monotonic() - started < PATIENCE_S
