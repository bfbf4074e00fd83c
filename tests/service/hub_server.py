"""A local server that speaks what huggingface_hub needs of the hub: revisions; files with ETag, commit and Range."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class LocalHub:
    """Files by path, what to do wrong with them, and what was asked."""

    repository: str
    files: dict[str, bytes] = field(default_factory=dict)
    wrong: dict[str, list[bytes]] = field(default_factory=dict)
    """Bodies that are served in a file's place, one a download, before the right one is."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of each request for a file."""
    newest: str = COMMIT
    url: str = ""
    plain_etags: bool = False
    """ETags that are no SHA-256, as of small files."""

    def body(self, path: str, download: bool) -> bytes:
        waiting = self.wrong.get(path, [])
        if not waiting:
            return self.files[path]
        return waiting.pop(0) if download else waiting[0]

    def etag(self, body: bytes, path: str) -> str:
        if self.plain_etags or self.wrong.get(path) is not None:
            return hashlib.sha1(body).hexdigest()
        return hashlib.sha256(body).hexdigest()


def handler_of(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(download=False)

        def do_GET(self) -> None:
            self.answer(download=True)

        def answer(self, download: bool) -> None:
            if found := re.fullmatch(rf"/api/datasets/{hub.repository}(?:/revision/(\w+))?(?:\?.*)?", self.path):
                if found[1] not in (None, "main", hub.newest):
                    return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, download)
                about = {"id": hub.repository, "sha": hub.newest, "siblings": []}
                return self.send(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, download)
            found = re.fullmatch(rf"/datasets/{hub.repository}/resolve/(\w+)/(.+)", self.path)
            if found is None:
                return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, download)
            commit, path = found[1], found[2]
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if path not in hub.files:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, download)
            body = hub.body(path, download)
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hub.etag(body, path)}"', "Accept-Ranges": "bytes"}
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                first = int(wanted[1])
                headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
                return self.send(206, body[first:], headers, download)
            return self.send(200, body, headers, download)

        def send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

    return Handler


@contextlib.contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    """Serve ``hub`` on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
