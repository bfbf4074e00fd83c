from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

from service.adapters import ray_knock
from service.adapters.ray_knock import knock
from service.errors import ClusterError


class NotFound(BaseHTTPRequestHandler):
    """An HTTP server, as the dashboard is one."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def http_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def grpc_port() -> Iterator[int]:
    """A gRPC server of something else, as Ray Client's is."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.fixture
def mute_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("kind", ["http_port", "grpc_port", "mute_port"])
def test_something_else_at_the_address_is_named_and_not_waited_for(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_knock, "ANSWER_S", 0.5 if kind == "mute_port" else ray_knock.ANSWER_S)
    address = f"127.0.0.1:{request.getfixturevalue(kind)}"
    with pytest.raises(ClusterError, match="it is no Ray head") as refused:
        knock(address)
    assert address in str(refused.value)
    assert "6379" in str(refused.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.1", ["'10.0.0.1'", "HOST:PORT"]),
        ("head:", ["'head:'", "HOST:PORT"]),
        (":6379", ["':6379'", "HOST:PORT"]),
        ("head:99999", ["'head:99999'", "HOST:PORT"]),
        ("ray://head:10001", ["'ray://head:10001'", "Ray Client", "ray job submit"]),
        ("http://head:8265", ["'http://head:8265'", "dashboard", "HOST:PORT"]),
    ],
)
def test_what_is_no_address_of_a_head_is_refused_with_what_is_one(address: str, words: list[str]) -> None:
    with pytest.raises(ClusterError) as refused:
        knock(address)
    assert [word for word in words if word not in str(refused.value)] == []


def test_ray_s_own_words_are_left_to_ray() -> None:
    knock("auto")
    knock("local")
