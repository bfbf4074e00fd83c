from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from model.data.shards import MANIFEST
from model.gang import Gang
from model.job import Job
from model.preflight import STEPS, WARM_UP, PreflightConfig, preflight_stage


@pytest.fixture
def corpus(corpus_folder: Path, tmp_path: Path) -> Path:
    """A copy whose manifest has every file's digest, as a prepared corpus has."""
    copy = shutil.copytree(corpus_folder, tmp_path / "corpus")
    manifest = json.loads((copy / MANIFEST).read_text())
    for ref in (manifest["tokenizer"], *manifest["splits"]["train"], *manifest["splits"]["val"]):
        ref["sha256"] = hashlib.sha256((copy / ref["path"]).read_bytes()).hexdigest()
    (copy / MANIFEST).write_text(json.dumps(manifest))
    return copy


def look(corpus: Path, out: Path, gang: Gang | None = None, **config: float) -> dict[str, float]:
    out.mkdir(exist_ok=True)
    job = Job(config=PreflightConfig(**config), seed=0, corpus=str(corpus), stage="preflight")
    return preflight_stage(job, out, gang or Gang())


def test_a_fit_node_is_measured_and_beats_with_every_step(corpus: Path, tmp_path: Path) -> None:
    beats: list[object] = []
    found = look(corpus, tmp_path / "out", Gang(beat=lambda own_s=None: beats.append(own_s)))
    assert found["files"] == 4
    assert found["step_ms"] > 0
    assert found["gpus"] == 0
    assert found["disk_gb"] == pytest.approx(shutil.disk_usage(tmp_path).free / 1e9, rel=0.05)
    assert len(beats) > STEPS + WARM_UP


@pytest.mark.parametrize("name", ["train_1.bin", "tiny.model"])
def test_a_corpus_file_with_one_other_bit_makes_a_node_unfit(corpus: Path, tmp_path: Path, name: str) -> None:
    data = bytearray((corpus / name).read_bytes())
    data[-1] ^= 1
    (corpus / name).write_bytes(data)
    with pytest.raises(RuntimeError, match=rf"node unfit: .*{name} has SHA-256"):
        look(corpus, tmp_path / "out")


def test_a_missing_corpus_file_is_named(corpus: Path, tmp_path: Path) -> None:
    (corpus / "val_0.bin").unlink()
    with pytest.raises(RuntimeError, match=r"val_0.bin has SHA-256 nothing"):
        look(corpus, tmp_path / "out")


def test_too_little_disk_is_named_with_both_figures(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"GB of disk free at .*, and a run needs 1e\+09"):
        look(corpus, tmp_path / "out", disk_gb=1e9)


def test_a_sum_that_is_wrong_makes_a_node_unfit(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Gang, tensor: object) -> object:
        tensor[17] += 1  # type: ignore[index]
        return tensor

    monkeypatch.setattr(Gang, "sum_", broken)
    with pytest.raises(RuntimeError, match=r"an all-reduce gave"):
        look(corpus, tmp_path / "out")


@pytest.mark.gpu
def test_a_gpu_node_is_measured(corpus: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = look(corpus, tmp_path / "out", Gang(device=torch.device("cuda", 0)))
    assert found["gpus"] == 1
    assert found["gpu_memory_gb"] > 0
