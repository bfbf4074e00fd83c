"""A script under a real torchrun, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.script import SCRATCH
from service.adapters.local_gang import run_here
from service.adapters.store_fs import FolderStore
from service.errors import FailureKind, StageFailed
from service.scripts import read_source, script_experiment
from service.spec import Budget, GangShape
from service.stages import PlannedStage

SCRIPT = Path(__file__).resolve().parents[2] / "field_script.py"


def planned(tmp_path: Path, misbehave: str, seed: int = 42, cap_s: float = 600.0) -> PlannedStage:
    path = tmp_path / "train_gpt.py"
    path.write_bytes(SCRIPT.read_bytes())
    gang, budget = GangShape(ranks=2, threads=1, device="cpu"), Budget(train_s=cap_s, eval_s=cap_s, slack_s=cap_s)
    env = {"MISBEHAVE": misbehave, "QK_GAIN_INIT": "5.25"}
    return script_experiment(read_source(path), (seed,), env, gang, budget).base.plans[seed][0]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "home")


def test_a_script_runs_in_a_fresh_copy_with_its_variables_and_is_found_again(
    tmp_path: Path, store: FolderStore
) -> None:
    stage = planned(tmp_path, "dump,twice")
    report = run_here(stage, store)
    assert report.metrics["val_bpb"] == pytest.approx(1.1006394 - 0.0025, abs=1e-6)
    assert store.log(stage.key).count("final_int6_sliding_window_exact val_loss:1.") == 1  # rank 1 is silent
    assert run_here(stage, store) == report
    assert len(store.tries(stage.key)) == 1
    assert not (store.tries(stage.key)[0] / SCRATCH).exists()
    assert not (tmp_path / "final_model.pt").exists()


def test_a_script_that_dies_has_its_last_words_in_the_error_and_isn_t_tried_again(
    tmp_path: Path, store: FolderStore
) -> None:
    with pytest.raises(StageFailed) as failed:
        run_here(planned(tmp_path, "die", seed=2), store)
    assert failed.value.kind is FailureKind.BUG
    assert "RuntimeError: no luck with seed 2" in failed.value.why


def test_a_script_that_never_ends_is_ended_at_its_caps(tmp_path: Path, store: FolderStore) -> None:
    with pytest.raises(StageFailed) as failed:
        run_here(planned(tmp_path, "hang", cap_s=2.0), store)
    assert failed.value.kind is FailureKind.CAP
