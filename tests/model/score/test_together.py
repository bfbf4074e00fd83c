from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPT
from model.quant.container import write_container
from model.quant.pack import PackConfig, pack_weights
from model.score.slot import Slot
from model.score.stage import ScoreConfig, score_stage
from model.score.together import score_slots
from model.score.windows import WindowConfig

NetFactory = Callable[..., GPT]


def test_stages_that_share_a_gang_leave_what_each_leaves_alone(
    random_net: NetFactory, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocab_size = open_corpus(corpus_folder).vocab_size
    packed = pack_weights(random_net(vocab_size=vocab_size).state_dict(), PackConfig(small_numel=10**9))
    write_container(tmp_path / "artifact.bin", packed)
    net = SimpleNamespace(build=lambda: random_net(9, vocab_size=vocab_size))
    windows = WindowConfig(seq_len=32, stride=8, batch_seqs=4)
    jobs, outs = [], [tmp_path / name / "out" for name in "abc"]
    for slot in (Slot(steps=2), Slot(steps=5, lr=0.02), Slot(steps=0)):
        config = SimpleNamespace(net=net, score=ScoreConfig(windows=windows, slot=slot))
        inputs = {"pack": str(tmp_path)}
        jobs.append(Job(config=config, seed=1, corpus=str(corpus_folder), stage="score.slot", inputs=inputs))
    for out in outs:
        out.mkdir(parents=True)
    together = score_slots(jobs, outs, Gang())
    said = [capsys.readouterr().out, *((out.parent / "log.txt").read_text() for out in outs[1:])]
    assert not (outs[0].parent / "log.txt").exists()
    for job, out, metrics, log in zip(jobs, outs, together, said, strict=True):
        alone = tmp_path / "alone"
        alone.mkdir(exist_ok=True)
        expected = score_stage(job, alone, Gang())
        assert {**metrics, "eval_s": 0} == {**expected, "eval_s": 0}
        assert json.loads((out / "exposure.json").read_text()) == json.loads((alone / "exposure.json").read_text())
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in log.splitlines() if "time" not in line] == [ln for ln in lines if "time" not in ln]
    assert replace(jobs[0], config=None) == replace(jobs[1], config=None)
    assert len({metrics["val_bpb"] for metrics in together}) == 3
