"""Looking on while a run goes on: its log as it grows, what is under way, and what the webhook hears."""

from __future__ import annotations

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.flow.conftest import Head, Place, wait_until


def test_a_run_is_watched_from_beside_it_until_it_is_ended(head: Head, place: Place) -> None:
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hook = {"CADDIE_WEBHOOK_URL": f"http://127.0.0.1:{server.server_port}/hook"}
        words = ["tiny", "--seeds", "7", *place.small(train__steps=100_000, train__log_every=2)]
        run = place.start("run", *words, **head.environment, **hook)
        try:
            wait_until("training is under way", lambda: place.log_says("train-*", "step:10/"))
            under_way = json.loads(place.caddie("top", "--once", "--json").stdout)
            left = place.start("logs", "7", "-f")
            followed = place.start("logs", "run-tiny", "-f")
            for one in (left, followed):
                assert one.stdout is not None
                assert "of seed 7, run-tiny, attempt 1" in one.stdout.readline()
                assert one.stdout.readline() == "seed:7\n"
            left.send_signal(signal.SIGINT)
            rest, _ = left.communicate(timeout=60)
            assert left.returncode == 130
            assert "Traceback" not in rest
        finally:
            run.send_signal(signal.SIGTERM)
            said, _ = run.communicate(timeout=120)
        assert followed.stdout is not None
        rest = followed.stdout.read()  # what readline has read ahead, too
        assert followed.wait(timeout=60) == 0, "it ends with the driver"
        server.shutdown()
    assert run.returncode == 130, said
    (row,), experiments = under_way["running"], under_way["experiments"]
    assert (row["stage"], row["seed"], row["experiment"]) == ("train", 7, "run-tiny")
    assert 0 < row["part"] < 0.01
    assert row["loss_nats"] > 1
    assert row["silent_s"] < row["elapsed_s"]
    assert [(one["name"], one["stages"]["done"]) for one in experiments] == [("run-tiny", 0)]
    assert experiments[0]["gpu_hours"] > 0
    assert "step:10/100000" in rest
    assert "ended without a result" in rest.splitlines()[-1] or "failed:" in rest
    assert [(one["event"], one["experiment"]) for one in told] == [("began", "run-tiny"), ("interrupted", "run-tiny")]
