"""Waiting for processes, and finding those that a test has started."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator

import psutil
import pytest

MARK = "CADDIE_TEST_MARK"

Alive = Callable[[], list[psutil.Process]]


def wait_until(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Return as soon as ``condition`` holds; fail when it doesn't ``within_s``."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object], float, str], None]:
    """``until(condition, within_s, what)``."""
    return wait_until


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Alive]:
    """``alive()``: every process that was started by this test, directly or not, and still runs.

    They are known by a variable in their environment, so neither a new session nor a new parent hides one.
    """
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)

    def find() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                    found.append(process)
            except psutil.Error:  # gone, a zombie, or somebody else's
                continue
        return found

    yield find
    for process in find():
        process.kill()
