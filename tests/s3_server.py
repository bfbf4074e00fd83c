"""An S3 server for tests, moto's, in a thread or as a process: ``python s3_server.py PORT``.

One request at a time: moto looks whether an object is there and then writes it, which S3 does in one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

LOGIN = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "us-east-1"}


def environment(port: int) -> dict[str, str]:
    """What a client has to be told."""
    return LOGIN | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def server(port: int = 0, before: Callable[[dict[str, Any]], None] = lambda environ: None) -> BaseWSGIServer:
    """A server that listens and doesn't serve yet; ``before`` sees each request first."""
    moto, guard = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        before(environ)
        with guard:
            return list(moto(environ, start_response))

    return make_server("127.0.0.1", port, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)


@contextlib.contextmanager
def serving(before: Callable[[dict[str, Any]], None] = lambda environ: None) -> Iterator[int]:
    """A server in a thread; its port."""
    one = server(before=before)
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    try:
        yield one.port
    finally:
        one.shutdown()
        thread.join()
        one.server_close()


def make_bucket(port: int, name: str) -> None:
    """Create a bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=LOGIN["AWS_DEFAULT_REGION"],
        aws_access_key_id=LOGIN["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=LOGIN["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=name)


if __name__ == "__main__":
    server(int(sys.argv[1])).serve_forever()
