"""Numbers that may only change on purpose: ``python tests/golden/rewrite.py`` writes them anew."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

REWRITE = runpy.run_path(str(Path(__file__).with_name("rewrite.py")))
GOLDEN: dict[str, Any] = json.loads(REWRITE["GOLDEN"].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    run: dict[str, Any] = REWRITE["tiny_run"]()
    return run


def test_losses_of_each_step_are_the_golden_ones(found: dict[str, Any]) -> None:
    assert len(GOLDEN["losses_nats"]) == 12
    assert found["losses_nats"] == pytest.approx(GOLDEN["losses_nats"], abs=1e-4)


def test_the_artifact_has_the_golden_size(found: dict[str, Any]) -> None:
    assert found["artifact_bytes"] == GOLDEN["artifact_bytes"]


def test_the_artifact_is_the_golden_one_byte_for_byte(found: dict[str, Any]) -> None:
    if found["machine"] != GOLDEN["machine"]:
        pytest.skip(f"float sums may differ: the golden artifact is of {GOLDEN['machine']}, this is {found['machine']}")
    assert found["artifact_sha256"] == GOLDEN["artifact_sha256"]
