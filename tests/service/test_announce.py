from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service import announce
from service.announce import Ending, announced, document
from service.source import ROOT

SUMMARY = {
    "winner": {"config": "lr=0.1", "score": "score.slot", "mean_bpb": 2.28, "sd_bpb": 0.01, "n": 3, "leaks": False},
    "gpu_hours": 0.4,
    "usd": 1.0,
    "elapsed_s": 60.0,
    "record": "~/records/x",
    "verified": True,
}


class Heard:
    """An Announcer that remembers."""

    def __init__(self) -> None:
        self.documents: list[Mapping[str, Any]] = []

    def post(self, document: Mapping[str, Any]) -> None:
        self.documents.append(document)


def test_an_experiment_that_ends_well_is_told_with_its_numbers() -> None:
    heard = Heard()
    with announced(heard, "slot-tiny") as ending:
        ending.tell(SUMMARY, [])
    began, finished = heard.documents
    assert (began["event"], began["winner"], began["record"]) == ("began", None, None)
    assert (finished["event"], finished["experiment"], finished["winner"]) == ("finished", "slot-tiny", "lr=0.1")
    assert {name: finished[name] for name in ("mean_bpb", "sd_bpb", "n")} == {"mean_bpb": 2.28, "sd_bpb": 0.01, "n": 3}
    assert (finished["usd"], finished["record"], finished["errors"]) == (1.0, "~/records/x", [])
    assert finished["text"] == "slot-tiny finished: lr=0.1, val_bpb 2.2800 ± 0.0100 (n=3), 1.00 USD"
    assert began.keys() == finished.keys()


def test_failed_seeds_make_it_failed_though_the_command_goes_on() -> None:
    heard = Heard()
    with announced(heard, "slot-tiny") as ending:
        ending.tell(SUMMARY, ["base, seed 7: NaN at step 3"])
    assert heard.documents[-1]["event"] == "failed"
    assert heard.documents[-1]["errors"] == ["base, seed 7: NaN at step 3"]
    assert "NaN at step 3" in heard.documents[-1]["text"]


@pytest.mark.parametrize(
    ("error", "event", "errors"),
    [(ValueError("no disk"), "failed", ["no disk"]), (KeyboardInterrupt(), "interrupted", [])],
)
def test_what_ends_it_early_is_told_and_passes_through(error: BaseException, event: str, errors: list[str]) -> None:
    heard = Heard()
    with pytest.raises(type(error)), announced(heard, "slot-tiny"):
        raise error
    assert [one["event"] for one in heard.documents] == ["began", event]
    assert heard.documents[-1]["errors"] == errors


def test_a_leaking_winner_says_so_in_its_line() -> None:
    leaking = SUMMARY | {"winner": {**SUMMARY["winner"], "leaks": True}}  # type: ignore[dict-item]
    assert "LEAKS" in document("finished", "x", Ending(summary=leaking))["text"]


def test_a_server_that_hangs_holds_up_neither_the_work_nor_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    worked = threading.Event()

    class Slow(Heard):
        def post(self, document: Mapping[str, Any]) -> None:
            if document["event"] == "began":
                assert worked.wait(10), "the block began while this was still being sent"
            super().post(document)

    heard = Slow()
    with announced(heard, "slot-tiny"):
        worked.set()
    assert [one["event"] for one in heard.documents] == ["began", "finished"]

    over = threading.Event()

    class Dead(Heard):
        def post(self, document: Mapping[str, Any]) -> None:
            over.wait(30)

    monkeypatch.setattr(announce, "PATIENCE_S", 0.05)
    with announced(Dead(), "slot-tiny"):
        pass
    assert "announce" in {thread.name for thread in threading.enumerate()}, "it is left behind"
    over.set()


def test_without_a_webhook_nothing_is_sent_and_no_thread_is_made() -> None:
    before = set(threading.enumerate())
    with announced(None, "slot-tiny"):
        assert set(threading.enumerate()) <= before


def test_many_long_errors_are_cut() -> None:
    made = document("failed", "x", Ending(errors=["e" * 10_000] * 100))
    assert len(json.dumps(made)) < 20_000


def test_the_documentation_lists_the_fields_that_are_sent() -> None:
    text = Path(ROOT / "docs/webhook.md").read_text(encoding="utf-8")
    fields = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert fields == list(document("began", "x", Ending()))
