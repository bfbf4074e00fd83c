"""Failures on a real cluster, told apart: what is tried again, what isn't, and which node is left alone."""

from __future__ import annotations

import json
import signal

import psutil
import pytest

from service.adapters.nodes_fs import NodeFolder
from tests.flow.conftest import Head, Place, alive, wait_until


def ranks() -> list[psutil.Process]:
    return [psutil.Process(pid) for pid, line in alive().items() if "-m model train" in line and "leash" not in line]


@pytest.mark.long
def test_a_hung_gang_is_ended_and_tried_again(place: Place, head: Head) -> None:
    small = place.small(score__slot="none", gang__ranks=2, gang__threads=1, train__steps=100, budget__silence_s=15)
    driver = place.start("run", "tiny", "--seeds", "1", *small, **head.environment)
    wait_until("training is under way", lambda: place.log_says("train-*", "step:4/"))
    ranks()[0].send_signal(signal.SIGSTOP)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, said
    train = next(key for key in place.attempts() if key.startswith("train-"))
    assert place.attempts()[train] == 2
    assert {n for key, n in place.attempts().items() if key != train} == {1}
    assert NodeFolder(place.home).apart() == {}, "one hang is no proof against a node"


def test_a_training_beyond_its_cap_is_ended_by_its_own_clock_and_not_tried_again(place: Place, head: Head) -> None:
    small = place.small(score__slot="none", train__steps=100_000, budget__train_s=3)
    failed = place.caddie("run", "tiny", "--seeds", "1", *small, "--json", **head.environment)
    assert failed.returncode == 1, failed.stderr
    error = json.loads(failed.stdout)["groups"][0]["seeds"]["1"]["error"]
    assert "cap exceeded" in error
    assert "its own clock shows" in error
    assert set(place.attempts().values()) == {1}


@pytest.mark.long
def test_a_node_that_was_set_apart_is_named_and_hired_again_when_it_is_released(place: Place, head: Head) -> None:
    words = ["run", "tiny", "--seeds", "1", *place.small(score__slot="none")]
    environment = head.environment | {"CADDIE_PREFLIGHT": "always"}
    first = place.caddie(*words, **environment)
    assert first.returncode == 0, first.stderr
    (speed,) = NodeFolder(place.home).speeds()
    NodeFolder(place.home).set_apart(speed.node, "ECC errors")

    again = place.caddie(*words[:3], "2", *words[4:], **environment)
    assert again.returncode == 1
    assert f"{speed.node}: ECC errors" in again.stdout + again.stderr
    assert f"caddie nodes --release {speed.node}" in (again.stdout + again.stderr).replace("NODE", speed.node)
    shown = json.loads(place.caddie("nodes", "--json").stdout)
    assert [one["why"] for one in shown["apart"]] == ["ECC errors"]
    assert place.caddie("nodes", "--release", "nobody").returncode == 2
    assert place.caddie("nodes", "--release", speed.node).returncode == 0
    assert place.caddie(*words[:3], "2", *words[4:], **environment).returncode == 0
