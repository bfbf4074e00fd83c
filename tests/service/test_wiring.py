from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from service.settings import read_settings
from service.source import ROOT
from service.wiring import Wiring

OTHER = """
import sys
from service.settings import read_settings
from service.wiring import Wiring

with Wiring(read_settings({"CADDIE_HOME": sys.argv[1]})).alone("record"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_two_drivers_of_a_home_do_what_must_be_done_alone_one_after_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER, os.fspath(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        ours = threading.Event()

        def wait() -> None:
            with Wiring(read_settings({"CADDIE_HOME": os.fspath(tmp_path)})).alone("record"):
                ours.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not ours.wait(0.3), "the other one is at it"
        other.stdin.close()
        thread.join(timeout=30)
        assert ours.is_set()
