"""A real gang of two for tests of what ranks do together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_two_ranks() -> Callable[[Path], list[dict[str, Any]]]:
    """``run_two_ranks(script)``: what each of two ranks wrote as its last line of stderr (JSON), and its stdout."""

    def run(script: Path) -> list[dict[str, Any]]:
        # The store that ranks meet at is held here, as torchrun does: a free port can't be lost to someone else.
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }
        ranks = [
            subprocess.Popen(
                [sys.executable, str(script)],
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            outputs = [rank.communicate(timeout=90) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(err[-3000:] for _, err in outputs)
        return [json.loads(err.strip().splitlines()[-1]) | {"stdout": out} for out, err in outputs]

    return run
