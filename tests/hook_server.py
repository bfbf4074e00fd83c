"""An HTTP server that a webhook posts to, on a port of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int) -> Answer:
    """Answer with a status, and with a place to be sent to."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Location", "/elsewhere")
        handler.end_headers()

    return answer


@contextmanager
def hook_server(answer: Answer | None = None) -> Iterator[tuple[str, list[Any]]]:
    """Its address, and what was posted to it so far."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            (answer or status(200))(self)

        def do_GET(self) -> None:
            posted.append("GET")

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/hook/secret", posted
    finally:
        http.shutdown()
        http.server_close()
