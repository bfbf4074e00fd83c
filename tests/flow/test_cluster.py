"""On a cluster that already runs: `ray job submit`, `ray job logs`, `ray job stop`."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.flow.conftest import REPO, Place, alive, wait_until


@dataclass(frozen=True)
class Head:
    """A head node of our own, with ports of its own."""

    address: str
    environment: dict[str, str]

    def job(self, *words: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
        """`ray job ...` against this head."""
        action, *rest = words
        command = [str(Path(sys.executable).parent / "ray"), "job", action, "--address", self.address, *rest]
        return subprocess.run(
            command, cwd=REPO, env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def head(place: Place) -> Iterator[Head]:
    """`ray start --head --block`, ended by its pid."""
    port, dashboard, *agents = free_ports(6)
    flags = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port")
    names = (*flags, "--metrics-export-port")
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp") as folder:
        environment = place.environment | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"]
        command += [f"--dashboard-port={dashboard}", f"--temp-dir={folder}", "--num-cpus=2"]
        command += [f"{name}={number}" for name, number in zip(names, agents, strict=True)]
        with open(os.path.join(folder, "head.log"), "w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder
            )
        children: list[psutil.Process] = []
        try:
            found = Head(address=f"http://127.0.0.1:{dashboard}", environment=environment)
            wait_until("the head answers", lambda: found.job("list").returncode == 0, limit_s=60)
            children = psutil.Process(process.pid).children(recursive=True)
            yield found
        finally:
            process.terminate()
            process.wait(timeout=20)
            _, stubborn = psutil.wait_procs(children, timeout=20)
            for one in stubborn:
                one.kill()


def test_a_submitted_job_runs_the_sweep_and_a_stopped_one_leaves_no_gang(head: Head, place: Place) -> None:
    script = ["--working-dir", ".", "--", "python", "sweeps/slot_sweep.py", "--non-record"]
    space = ["--space", "score.slot.steps=2", "--space", "score.slot.lr=0.004"]
    ended = head.job("submit", *script, *space, *place.small(), "--seeds", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "(verified)" in ended.stdout
    records = list((place.home / "records").iterdir())
    assert len(records) == 1
    assert json.loads((records[0] / "submission.json").read_text())["seeds"] == [1]

    long = head.job("submit", "--no-wait", *script, *place.small(train__steps=100_000), "--seeds", "7")
    job = re.search(r"raysubmit_\w+", long.stdout + long.stderr)
    assert job is not None, long.stdout + long.stderr
    wait_until("training is under way", lambda: place.log_says("train-*", "/100000"))
    assert any("-m model train" in line for line in alive().values())
    stopped = head.job("stop", job[0])
    assert stopped.returncode == 0, stopped.stderr
    gang = ("torch.distributed.run", "-m model")
    wait_until("the gang ends", lambda: not any(word in line for line in alive().values() for word in gang), limit_s=20)
    assert "slot-tiny" in head.job("logs", job[0]).stdout
    assert "was stopped" in (status := head.job("status", job[0])).stdout + status.stderr


def test_a_cluster_that_does_not_answer_is_named(place: Place) -> None:
    (port,) = free_ports(1)
    refused = place.caddie("run", "tiny", "--seeds", "1", *place.small(), RAY_ADDRESS=f"127.0.0.1:{port}")
    assert refused.returncode == 1, refused.stdout
    assert f"127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr
