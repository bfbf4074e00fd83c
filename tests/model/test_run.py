from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.adapt.muon_ttt import MuonRule
from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from model.adapt.ttt import Ttt
from model.codec import decode, encode
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPTConfig
from model.overlay import field_at, overlay
from model.quant.pack import PackConfig
from model.report import StageReport, read_report
from model.run import RunConfig, run_chain, run_stage
from model.score.sliding import Sliding
from model.score.slot import Slot
from model.score.stage import ScoreConfig
from model.score.windows import WindowConfig
from model.stages import STAGES, Stage
from model.train import TrainConfig


def tiny_job(corpus_folder: Path) -> Job:
    config = RunConfig(
        net=GPTConfig(
            vocab_size=open_corpus(corpus_folder).vocab_size,
            layers=2,
            dim=16,
            heads=4,
            kv_heads=2,
            mlp_mult=2,
            rope_dims=4,
        ),
        train=TrainConfig(steps=3, batch_tokens=64, seq_len=16, micro_seqs=4, warmup_steps=1),
        adapt=AdaptConfig(prequant=Prequant(epochs=2)),
        pack=PackConfig(small_numel=100, codec="raw"),
        score=ScoreConfig(
            windows=WindowConfig(seq_len=32, stride=16, batch_seqs=8),
            sliding=Sliding(),
            ttt=Ttt(chunk_tokens=64),
            slot=Slot(steps=2),
        ),
    )
    return Job(config=config, seed=11, corpus=str(corpus_folder))


@pytest.fixture(scope="module")
def chain(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chain")
    run_chain(tiny_job(corpus_folder), out, Gang(), code_bytes=1234)
    return out


def test_a_chain_leaves_a_report_with_files_and_finite_metrics_for_every_stage(chain: Path) -> None:
    for stage, outputs in (
        ("train", {"checkpoint.bin", "curve.json"}),
        ("adapt.prequant", {"checkpoint.bin", "exposure.json"}),
        ("pack", {"artifact.bin", "exposure.json"}),
        ("score.sliding", {"exposure.json"}),
        ("score.ttt", {"exposure.json"}),
        ("score.slot", {"exposure.json"}),
    ):
        report = read_report(chain / stage)
        assert (report.stage, report.seed) == (stage, 11)
        assert set(report.outputs) == outputs
        for name, ref in report.outputs.items():
            data = (chain / stage / name).read_bytes()
            assert (ref.path, ref.size_bytes) == (name, len(data))
            assert ref.sha256 == hashlib.sha256(data).hexdigest()
        assert report.elapsed_s > 0
        assert report.facts["ranks"] == 1
        assert report.facts["torch"] == torch.__version__


def test_stages_run_one_by_one_give_the_numbers_of_the_chain(chain: Path, corpus_folder: Path, tmp_path: Path) -> None:
    import importlib

    inputs: dict[str, str] = {}
    for stage, definition in STAGES.items():
        if not definition.of_a_seed:
            continue
        module, _, name = definition.entry.partition(":")
        job = replace(tiny_job(corpus_folder), stage=str(stage), inputs=dict(inputs))
        job = decode(json.loads(json.dumps(encode(job))))
        run_stage(getattr(importlib.import_module(module), name), job, tmp_path / stage, Gang())
        inputs[str(stage)] = str(tmp_path / stage)
        alone, together = read_report(tmp_path / stage), read_report(chain / stage)
        assert alone.outputs == together.outputs
        timings = {"train_s", "step_avg_ms", "tokens_per_s", "prequant_s", "eval_s"}
        assert set(alone.metrics) == set(together.metrics)
        for metric in set(alone.metrics) - timings:
            assert alone.metrics[metric] == together.metrics[metric]


def test_a_chain_logs_the_total_of_code_and_model(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_chain(tiny_job(corpus_folder), tmp_path, Gang(), code_bytes=1234)
    total = re.findall(r"^Total submission size[^:\n]*: (\d+) bytes", capsys.readouterr().out, re.MULTILINE)
    assert total == [str(1234 + (tmp_path / "pack" / "artifact.bin").stat().st_size)]


def test_what_is_off_is_left_out_and_then_no_score_is_exposed(corpus_folder: Path, tmp_path: Path) -> None:
    job = tiny_job(corpus_folder)
    off = replace(job.config, adapt=AdaptConfig(), score=replace(job.config.score, slot=None, ttt=None))
    run_chain(replace(job, config=off), tmp_path, Gang(), code_bytes=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "score.sliding", "train"]
    assert not (tmp_path / "pack" / "exposure.json").exists()
    assert read_report(tmp_path / "score.sliding").metrics["exposed"] == 0


def test_weights_that_saw_the_validation_split_expose_what_every_score_says_of_it(chain: Path) -> None:
    """Sequences of 16 targets were trained on; the tail that is no whole one was not."""
    tokens = int(read_report(chain / "score.sliding").metrics["tokens"])
    seen = tokens // 16 * 16
    trained = {"kind": "trained", "first": 0, "stop": seen}
    for stage in ("adapt.prequant", "pack"):
        assert json.loads((chain / stage / "exposure.json").read_text()) == [trained]
    for stage in ("score.sliding", "score.ttt", "score.slot"):
        assert json.loads((chain / stage / "exposure.json").read_text())[0] == trained
        assert read_report(chain / stage).metrics["exposed"] == seen > 0


def failing(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    raise OSError("disk is gone")


def diverging(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    return {"val_bpb": float("nan")}


def test_a_stage_that_fails_leaves_its_traceback_and_no_report(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is gone"):
        run_stage(failing, Job(config=None, seed=1, corpus=""), tmp_path / "out", Gang())
    failure = json.loads((tmp_path / "out" / "failure.0.json").read_text())
    assert failure["rank"] == 0
    assert failure["error"] == "OSError: disk is gone"
    assert "in failing" in failure["traceback"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["failure.0.json"]


def test_a_stage_with_a_metric_that_is_not_finite_leaves_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="val_bpb is nan"):
        run_stage(diverging, Job(config=None, seed=1, corpus=""), tmp_path, Gang())
    assert not (tmp_path / "report.json").exists()


def test_a_report_names_the_files_that_are_there_and_no_hidden_ones(tmp_path: Path) -> None:
    def writing(job: Job, out: Path, gang: Gang) -> dict[str, float]:
        (out / "a.bin").write_bytes(b"abc")
        (out / ".scratch").write_bytes(b"x")
        (out / "folder").mkdir()
        return {"size": 3}

    assert run_stage(writing, Job(config=None, seed=1, corpus="", stage="s"), tmp_path, Gang()) == {"size": 3}
    report = read_report(tmp_path)
    assert isinstance(report, StageReport)
    assert list(report.outputs) == ["a.bin"]


def test_the_table_s_entries_and_config_paths_exist(corpus_folder: Path) -> None:
    import importlib

    job = tiny_job(corpus_folder)
    assert list(STAGES) == list(Stage)
    for definition in STAGES.values():
        module, _, name = definition.entry.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        for path in definition.reads:
            assert field_at(job.config, path) is not None
    order = list(STAGES)
    for stage, definition in STAGES.items():
        assert all(order.index(before) < order.index(stage) for before in definition.after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score.ttt.freeze_blocks": 2}, r"score\.ttt\.freeze_blocks must be below net\.layers=2, got 2"),
        ({"score.ttt.chunk_tokens": 31}, r"score\.ttt\.chunk_tokens must be .*seq_len=32 or more, got 31"),
        ({"adapt.prequant.freeze_blocks": 9}, r"adapt\.prequant\.freeze_blocks must be below net\.layers=2, got 9"),
        ({"score.windows.stride": 32}, r"score\.windows\.stride=32 is the whole window"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parts_that_do_not_go_together_are_refused_before_anything_runs(
    corpus_folder: Path, change: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(tiny_job(corpus_folder).config, change)


def test_a_part_that_is_off_is_turned_on_by_its_name_and_set_in_the_same_breath(corpus_folder: Path) -> None:
    plain = overlay(tiny_job(corpus_folder).config, {"score.ttt": None})
    changes = {
        "score.ttt": "model.adapt.ttt:Ttt",
        "score.ttt.epochs": 5,
        "score.ttt.rule": "model.adapt.muon_ttt:MuonRule",
        "score.ttt.rule.iterations": 3,
    }
    assert overlay(plain, changes).score.ttt == Ttt(epochs=5, rule=MuonRule(iterations=3))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("os:system", "only what lies in model/"),
        ("model.adapt.ttt:Tttt", "has no attribute 'Tttt'"),
        ("model.adapt.nothing:Ttt", "No module named"),
        ("model.adapt.ttt:chunk_rate", "chunk_rate is no config"),
        ("on", "only what lies in model/"),
    ],
)
def test_a_part_by_a_wrong_name_is_refused_with_the_way_out(corpus_folder: Path, name: str, why: str) -> None:
    with pytest.raises(
        ValueError, match=rf"score\.ttt must be a Scorer, got '{name}': .*{why}.*e\.g\. model\.adapt\.ttt"
    ):
        overlay(tiny_job(corpus_folder).config, {"score.ttt": name})
    with pytest.raises(ValueError, match=r"score\.ttt must be of type Scorer, got Sgd"):
        overlay(tiny_job(corpus_folder).config, {"score.ttt": "model.adapt.sgd:SgdRule"})
