"""Looking on while a run goes on: its log as it grows, what is under way, and what the webhook hears."""

from __future__ import annotations

import json
import signal

from tests.flow.conftest import Head, Place, wait_until
from tests.hook_server import hook_server


def test_a_run_is_watched_from_beside_it_until_it_is_ended(head: Head, place: Place) -> None:
    with hook_server() as (url, told):
        hook = {"CADDIE_WEBHOOK_URL": url}
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
