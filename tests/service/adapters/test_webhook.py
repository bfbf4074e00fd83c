from __future__ import annotations

import socket
import threading

import pytest

from service.adapters import webhook
from service.adapters.torchrun import gang_environment
from service.adapters.webhook import Webhook
from service.announce import Ending, document
from tests.hook_server import hook_server, status

DOCUMENT = document("began", "slot-tiny", Ending())


def test_a_document_arrives_once_as_it_is() -> None:
    said: list[str] = []
    with hook_server(status(204)) as (url, posted):
        Webhook(url, said.append).post(DOCUMENT)
    assert (posted, said) == ([DOCUMENT], [])


def test_a_server_that_fails_once_is_asked_again() -> None:
    said: list[str] = []
    codes = iter([503, 200])
    with hook_server(lambda handler: status(next(codes))(handler)) as (url, posted):
        Webhook(url, said.append).post(DOCUMENT)
    assert (posted, said) == ([DOCUMENT, DOCUMENT], [])


@pytest.mark.parametrize(("code", "reason"), [(500, "500 Internal Server Error"), (404, "404"), (302, "302")])
def test_a_refusal_is_one_line_with_the_reason_and_without_the_secret(code: int, reason: str) -> None:
    said: list[str] = []
    with hook_server(status(code)) as (url, posted):
        Webhook(url, said.append).post(DOCUMENT)
    assert posted == [DOCUMENT, DOCUMENT], "one more try, and no GET elsewhere"
    (line,) = said
    assert line.startswith("webhook: 127.0.0.1 was not told that slot-tiny began: ")
    assert reason in line
    assert "secret" not in line
    assert "\n" not in line


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.1)
    over, said = threading.Event(), list[str]()
    with hook_server(lambda _: over.wait(30) and None) as (url, posted):
        Webhook(url, said.append).post(DOCUMENT)
        over.set()
    assert len(said) == 1
    assert "timed out" in said[0]
    assert posted == [DOCUMENT, DOCUMENT]


def test_a_server_that_is_not_there_or_speaks_something_else_is_one_line() -> None:
    said: list[str] = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Webhook(f"http://127.0.0.1:{port}/x", said.append).post(DOCUMENT)
    assert "Connection refused" in said[0]

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                connection.recv(65_536)
                connection.sendall(b"who is there?\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/x", said.append).post(DOCUMENT)
        thread.join()
    assert len(said) == 2


def test_a_rank_is_not_told_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADDIE_WEBHOOK_URL", "http://127.0.0.1:9/secret")
    assert "CADDIE_WEBHOOK_URL" not in gang_environment(1)
