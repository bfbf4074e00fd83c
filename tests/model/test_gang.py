from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.gang import Gang, join_gang

RANK_SCRIPT = Path(__file__).with_name("rank_of_two.py")


@pytest.fixture
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_a_gang_of_one_leaves_everything_as_it_is() -> None:
    gang = Gang()
    tensor = torch.tensor([1.0, 2.0])
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    gang.average_gradients([parameter])
    gang.barrier()
    assert gang.chief
    assert gang.sum_(tensor).tolist() == [1.0, 2.0]
    assert gang.first(7.25) == 7.25
    assert parameter.grad.tolist() == [3.0, 4.0]


def test_only_the_chief_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for rank in range(3):
        Gang(rank=rank, world=3).log(f"line of {rank}")
    assert capsys.readouterr().out == "line of 0\n"


@pytest.mark.usefixtures("no_torchrun")
def test_without_torchrun_s_environment_a_process_is_a_gang_of_one() -> None:
    with join_gang("cpu", 1) as gang:
        assert gang == Gang(rank=0, world=1, device=torch.device("cpu"))
        assert torch.get_num_threads() == 1
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("no_torchrun")
def test_a_gpu_that_is_not_there_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.cuda.device_count()
    monkeypatch.setenv("LOCAL_RANK", str(there))
    with pytest.raises(ValueError, match=f"needs GPU {there}, but this process sees {there}"), join_gang("cuda", 1):
        pass


@pytest.fixture(scope="module")
def two_ranks(run_two_ranks: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return run_two_ranks(RANK_SCRIPT)


def test_two_ranks_share_sums_and_the_chief_s_word(two_ranks: list[dict[str, Any]]) -> None:
    for rank, seen in enumerate(two_ranks):
        assert (seen["rank"], seen["world"], seen["chief"]) == (rank, 2, rank == 0)
        assert seen["sum"] == [3.0, 20.0]
        assert seen["first"] == 5.5
        assert seen["gradient"] == [2.0] * 4
        assert seen["frozen"] is None
    assert two_ranks[0]["stdout"].endswith("only from rank 0\n")
    assert two_ranks[1]["stdout"] == ""


def test_two_ranks_agree_on_one_score(two_ranks: list[dict[str, Any]]) -> None:
    assert [seen["loss"] for seen in two_ranks] == [(1 + 2 + 2 + 3) / 4] * 2
    assert [seen["twice"] for seen in two_ranks] == [0, 0]
    assert [seen["exposed"] for seen in two_ranks] == [3, 3], "both had trained on targets 0 to 2"


def test_every_rank_gathers_every_rank_s_value(two_ranks: list[dict[str, Any]]) -> None:
    assert [seen["gathered"] for seen in two_ranks] == [[{"rank": 0}, {"rank": 1}]] * 2


def test_two_ranks_train_the_network_that_one_trains(two_ranks: list[dict[str, Any]]) -> None:
    spec = importlib.util.spec_from_file_location("rank_of_two", RANK_SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    curve, weights = module.train(0, 1, Gang())
    assert two_ranks[0]["curve"] == two_ranks[1]["curve"]
    assert two_ranks[0]["weights"] == two_ranks[1]["weights"]
    assert two_ranks[0]["curve"] == pytest.approx(curve, abs=1e-4)
    assert two_ranks[0]["weights"] == pytest.approx(weights, abs=1e-4)
    assert max(map(abs, weights)) > 1e-4
