"""Waiting for processes, and finding those that a test has started."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.data.shards import Corpus
from service.adapters.stores import StoreAt, open_store
from service.corpus.documents import Documents
from service.corpus.prepare import prepare

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


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """An S3 server of ours, or a reason why not."""
    for name in ("moto", "s3fs"):
        pytest.importorskip(name)
    from tests.s3_server import serving

    with serving() as port:
        yield port


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for a store: of each kind by ``pytest.mark.parametrize("url", KINDS, indirect=True)``."""
    on_s3 = getattr(request, "param", "file") == "s3"
    return str(request.getfixturevalue("s3_url")) if on_s3 else f"file://{tmp_path}/remote"


@pytest.fixture
def s3_url(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of a fresh bucket, and the environment that leads there."""
    from tests.s3_server import environment, make_bucket

    for name, value in environment(s3_port).items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    make_bucket(s3_port, bucket)
    return f"s3://{bucket}/caddie"


@pytest.fixture
def node(url: str, tmp_path: Path) -> Callable[[str], Any]:
    """``node("a")``: the store at ``url`` as node a sees it, freshly opened."""
    return lambda name: open_store(StoreAt(home=tmp_path / name, url=url))


@pytest.fixture(scope="session")
def prepared(documents_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus whose manifest has digests, as the driver makes it."""
    documents = Documents(name="walks", path=documents_file)
    return prepare(documents, 384, tmp_path_factory.mktemp("corpora"), lambda _: None)


def objects_of(store: Any) -> list[str]:
    found = store.remote.files.find(store.remote.root)
    return sorted(str(path).removeprefix(store.remote.root + "/") for path in found)


@pytest.fixture(scope="session")
def objects() -> Callable[[Any], list[str]]:
    """``objects(store)``: the name of everything in its remote."""
    return objects_of
