"""The main job in small: two seeds, a SLOT sweep, MLflow, a verified record; then everything that is done with it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.flow.conftest import Head, Place

SWEEP = ["sweep", "slot", "--seeds", "1,2", "--non-record", "--json"]
SPACE = ["--space", "score.slot.steps=2", "--space", "score.slot.lr=0.004,0.012"]


@dataclass(frozen=True)
class Done:
    place: Place
    answer: dict[str, Any]
    record: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> Done:
    """The whole job in gangs of one rank."""
    place = Place(home=tmp_path_factory.mktemp("home"), documents=documents)
    ended = place.caddie(*SWEEP, *SPACE, *place.small())
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    return Done(place=place, answer=answer, record=Path(answer["record"]["folder"]))


@pytest.fixture(scope="module")
def done_by_two(tmp_path_factory: pytest.TempPathFactory, documents: Path, head: Head) -> Done:
    """A run without SLOT in gangs of two ranks, on a cluster that is there, and its record."""
    place = Place(home=tmp_path_factory.mktemp("home2"), documents=documents)
    words = ["tiny", "--seeds", "1,2", "--json", *place.small(gang__ranks=2, score__slot="none")]
    ended = place.caddie("run", *words, **head.environment)
    assert ended.returncode == 0, ended.stderr
    clone = tmp_path_factory.mktemp("clone")
    recorded = place.caddie("record", "assemble", *words, "--non-record", "--pr", str(clone), "--name", "Two ranks")
    assert recorded.returncode == 0, recorded.stderr
    record = json.loads(recorded.stdout)
    return Done(place=place, answer=json.loads(ended.stdout) | {"record": record}, record=Path(record["folder"]))


@pytest.mark.parametrize(("world", "configs"), [("done", 3), pytest.param("done_by_two", 1, marks=pytest.mark.long)])
def test_two_seeds_become_a_verified_record(world: str, configs: int, request: pytest.FixtureRequest) -> None:
    done = request.getfixturevalue(world)
    assert done.answer["record"]["ok"], done.answer["record"]["mismatches"]
    assert [group["n"] for group in done.answer["groups"]] == [2] * configs
    names = {path.name for path in done.record.iterdir()}
    assert {"README.md", "submission.json", "train_gpt.py", "train_seed1.log", "train_seed2.log"} <= names
    best = min(group["mean_bpb"] for group in done.answer["groups"])
    assert done.answer["record"]["mean_bpb"] == pytest.approx(best, abs=1e-8)
    lines = (done.record / "README.md").read_text().splitlines()
    assert lines[0].startswith("# Non-record: ")
    assert lines[2].startswith("**This is not a record**: 1 of ")
    assert lines[4].startswith("- three_seeds: n = 2 (1, 2)")


@pytest.mark.long
def test_a_pull_request_s_record_lies_where_the_field_has_it(done_by_two: Done) -> None:
    place = done_by_two.record.relative_to(done_by_two.record.parents[2])
    assert re.fullmatch(r"records/track_non_record_tiny_cpu/\d{4}-\d{2}-\d{2}_Two_ranks", str(place))


@pytest.mark.long
def test_gangs_of_one_and_of_two_learn_the_same_curve(done: Done, done_by_two: Done) -> None:
    curves = []
    for one in (done, done_by_two):
        key = one.answer["groups"][0]["seeds"]["1"]["stages"]["train"]
        curves.append(json.loads((one.place.home / "stages" / key / "curve.json").read_text()))
    assert len(curves[0]) == 12
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_a_sweep_over_slot_trains_each_seed_once(done: Done) -> None:
    kinds = [key.rsplit("-", 1)[0] for key in done.place.stages()]
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    assert counts == {"audit": 1, "pack": 2, "score-sliding": 2, "score-slot": 4, "train": 2}
    assert set(done.place.attempts().values()) == {1}


def test_configs_of_one_artifact_share_a_gang_and_a_forward(done: Done) -> None:
    jobs = [json.loads(path.read_text()) for path in (done.place.home / "attempts").glob("score-slot-*/1/job.json")]
    assert sorted((job["seed"], len(job["alongside"])) for job in jobs) == [(1, 1), (2, 1)]


def test_a_second_run_finds_every_stage_done(done: Done) -> None:
    before = done.place.attempts()
    again = done.place.caddie(*SWEEP, *SPACE, *done.place.small())
    assert again.returncode == 0, again.stderr
    assert "0 to run" in again.stderr
    answer = json.loads(again.stdout)
    summary, first = answer.pop("summary"), done.answer["summary"]
    assert answer == {name: value for name, value in done.answer.items() if name != "summary"}
    assert (summary["stages"], summary["usd"]) == ({"computed": 0, "cached": 10}, 0.0)
    assert first["stages"] == {"computed": 10, "cached": 0}
    assert first["usd"] > 0
    assert (summary["winner"], summary["vs_base"]) == (first["winner"], first["vs_base"])
    assert summary["record"] == first["record"]
    assert done.place.attempts() == before


@pytest.mark.parametrize("world", ["done", pytest.param("done_by_two", marks=pytest.mark.long)])
def test_the_bundled_script_reproduces_a_seed_byte_for_byte(
    world: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    done = request.getfixturevalue(world)
    reports = json.loads((done.record / "reports.json").read_text())
    alone = tmp_path / "alone"
    shutil.copytree(done.record, alone)
    environment = {k: v for k, v in done.place.environment.items() if k != "PYTHONPATH"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    ended = subprocess.run(
        [*torchrun, f"--nproc_per_node={reports['about']['ranks']}", "train_gpt.py"],
        cwd=alone,
        env=environment | {"SEED": "2", "DEVICE": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    artifact = (alone / "out_seed2/pack/artifact.bin").read_bytes()
    assert hashlib.sha256(artifact).hexdigest() == reports["seeds"]["2"]["pack"]["outputs"]["artifact.bin"]["sha256"]
    final = [line for line in ended.stdout.splitlines() if "_exact" in line][-1]
    assert final in (done.record / "train_seed2.log").read_text()


def test_verify_says_no_when_a_number_is_changed(done: Done, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(done.record, changed)
    path = changed / "submission.json"
    data = json.loads(path.read_text())
    data["val_bpb"] -= 0.001
    path.write_text(json.dumps(data))
    verdict = done.place.caddie("record", "verify", str(changed), "--json")
    answer = json.loads(verdict.stdout)
    assert verdict.returncode == 1
    assert not answer["ok"]
    assert any("val_bpb" in line for line in answer["mismatches"])
    assert done.place.caddie("record", "verify", str(done.record)).returncode == 0


def test_mlflow_shows_configs_over_seeds(done: Done) -> None:
    client = MlflowClient(f"sqlite:///{done.place.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(done.answer["name"])
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags["caddie.level"] == "config"]
    children = [run for run in runs if run.data.tags["caddie.level"] == "seed"]
    assert (len(parents), len(children)) == (3, 6)
    assert {run.info.status for run in runs} == {"FINISHED"}
    wanted = sorted(group["mean_bpb"] for group in done.answer["groups"])
    assert sorted(run.data.metrics["val_bpb_mean"] for run in parents) == pytest.approx(wanted)
    assert all({"val_bpb", "size/model_bytes", "time/train_s"} <= run.data.metrics.keys() for run in children)


def test_a_missing_mlflow_server_loses_nothing(done: Done, tmp_path: Path) -> None:
    words = [*SWEEP, *SPACE, *done.place.small(), "--no-record"]
    away = done.place.caddie(*words, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert away.returncode == 0, away.stderr
    assert "MLflow is behind" in away.stderr
    later = f"sqlite:///{tmp_path / 'later.db'}"
    assert done.place.caddie(*words, MLFLOW_TRACKING_URI=later).returncode == 0
    client = MlflowClient(later)
    assert len(client.search_runs([client.get_experiment_by_name(done.answer["name"]).experiment_id])) == 9


def test_a_damaged_stage_is_set_aside_and_computed_again(done: Done, head: Head) -> None:
    key = done.answer["groups"][0]["seeds"]["1"]["stages"]["pack"]
    artifact = done.place.home / "stages" / key / "artifact.bin"
    good = artifact.read_bytes()
    artifact.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    words = ["run", "tiny", "--seeds", "1", *done.place.small(score__slot="none")]
    again = done.place.caddie(*words, **head.environment)
    assert again.returncode == 0, again.stderr
    assert "is damaged" in again.stderr
    assert artifact.read_bytes() == good
    assert done.place.attempts()[key] == 2
    assert list((done.place.home / "damaged").glob(f"{key}.*"))
