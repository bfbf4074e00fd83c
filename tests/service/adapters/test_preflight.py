"""Preflights with real gangs of this machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from model.data.shards import MANIFEST, Corpus, open_corpus
from service.adapters.preflight import preflight
from service.adapters.store_fs import FolderStore
from service.spec import GangShape, RunSpec
from service.stages import PlannedStage, plan_seed


@pytest.fixture
def digested(corpus_folder: Path, tmp_path: Path) -> Corpus:
    """A copy whose manifest has every file's digest, as a prepared corpus has."""
    copy = shutil.copytree(corpus_folder, tmp_path / "corpus")
    manifest = json.loads((copy / MANIFEST).read_text())
    for ref in (manifest["tokenizer"], *manifest["splits"]["train"], *manifest["splits"]["val"]):
        ref["sha256"] = hashlib.sha256((copy / ref["path"]).read_bytes()).hexdigest()
    (copy / MANIFEST).write_text(json.dumps(manifest))
    return open_corpus(copy)


@pytest.fixture
def planned(spec: RunSpec, digested: Corpus) -> PlannedStage:
    return plan_seed(replace(spec, gang=GangShape(ranks=2, threads=1, device="cpu")), 42, digested)[0]


def test_a_fit_node_tells_its_speed_and_one_that_lost_a_corpus_file_is_unfit(
    planned: PlannedStage, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "home")
    fit = asyncio.run(preflight(planned, "here", store))
    assert fit.unfit == ""
    assert fit.speed is not None
    assert (fit.speed.node, fit.speed.step_ms > 0) == ("here", True)
    assert fit.speed.kind.endswith("2 x 1 cpu")

    (Path(planned.corpus) / "val_0.bin").unlink()
    unfit = asyncio.run(preflight(planned, "here", store))
    assert unfit.speed is None
    assert "val_0.bin has SHA-256 nothing" in unfit.unfit
    assert "log:" in unfit.unfit


def test_a_node_without_the_gpus_that_are_asked_for_is_unfit(planned: PlannedStage, tmp_path: Path) -> None:
    gpus = replace(planned, gang=GangShape(ranks=1, threads=1, device="cuda"))
    found = asyncio.run(preflight(gpus, "here", FolderStore(tmp_path)))
    if not found.unfit:
        pytest.skip("this machine has a GPU")
    assert "rank 0 needs GPU 0, but this process sees 0" in found.unfit
    assert found.speed is None
