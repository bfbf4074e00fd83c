from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model.gang import Gang

RANK_SCRIPT = Path(__file__).with_name("rank_of_two.py")


@pytest.fixture(scope="module")
def two_ranks(run_two_ranks: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return run_two_ranks(RANK_SCRIPT)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adapting_rank_of_two", RANK_SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alone(script: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = script.results(Gang())
    return found


@pytest.mark.parametrize("name", ["sgd", "muon", "slot"])
def test_two_ranks_score_and_learn_what_one_does_also_when_sequences_do_not_divide(
    two_ranks: list[dict[str, Any]], alone: dict[str, Any], name: str
) -> None:
    for seen in two_ranks:
        assert seen[name]["nats"] == pytest.approx(alone[name]["nats"], abs=1e-4)
        assert seen[name]["weights"] == pytest.approx(alone[name]["weights"], abs=1e-4)
        assert seen[name]["trained"] == alone[name]["trained"] != []
        assert seen[name]["exposed"] == 0
    assert two_ranks[0][name]["weights"] == two_ranks[1][name]["weights"]


def test_two_ranks_adapt_before_packing_as_one_does(two_ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for seen in (found["prequant"] for found in two_ranks):
        assert seen["loss"] == pytest.approx(alone["prequant"]["loss"], abs=1e-4)
        assert seen["weights"] == pytest.approx(alone["prequant"]["weights"], abs=1e-4)
        assert seen["trained"] == alone["prequant"]["trained"] == [{"kind": "trained", "first": 0, "stop": 128}]


def test_the_weights_did_move(script: ModuleType, alone: dict[str, Any]) -> None:
    start = script.weights(script.some_net())
    for found in alone.values():
        assert max(abs(a - b) for a, b in zip(start, found["weights"], strict=True)) > 1e-3
