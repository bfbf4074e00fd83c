from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.gang import Gang

RANK_SCRIPT = Path(__file__).with_name("rank_of_two.py")
Runs = dict[str, dict[str, list[float]]]


@pytest.fixture(scope="module")
def two_ranks(run_two_ranks: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return run_two_ranks(RANK_SCRIPT)


@pytest.fixture(scope="module")
def one_rank() -> Runs:
    spec = importlib.util.spec_from_file_location("rank_of_two_muon", RANK_SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runs: Runs = module.every_run(Gang())
    return runs


@pytest.mark.parametrize("clip", ["0.0", "0.05"])
def test_two_ranks_that_share_the_work_take_the_steps_of_one_that_does_all(
    two_ranks: list[dict[str, Any]], one_rank: Runs, clip: str
) -> None:
    expected = one_rank[f"simple {clip}"]
    for name, weights in expected.items():
        for runs in (one_rank, *two_ranks):
            assert runs[f"parallel {clip}"][name] == pytest.approx(weights, abs=2e-4), name
        assert two_ranks[0][f"parallel {clip}"][name] == two_ranks[1][f"parallel {clip}"][name], name


def test_the_clip_bites(one_rank: Runs) -> None:
    free, clipped = (one_rank[f"parallel {clip}"]["embedding"] for clip in ("0.0", "0.05"))
    assert max(abs(a - b) for a, b in zip(free, clipped, strict=True)) > 1e-4
