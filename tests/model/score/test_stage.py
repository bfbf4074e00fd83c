from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import torch

from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPT
from model.quant.container import write_container
from model.quant.pack import PackConfig, pack_weights
from model.score.bpb import Tally
from model.score.sliding import Sliding
from model.score.slot import Slot
from model.score.stage import ScoreConfig, score_stage
from model.score.stream import Stream
from model.score.windows import WindowConfig

NetFactory = Callable[..., GPT]
SCORE = ScoreConfig(
    windows=WindowConfig(seq_len=32, stride=8, batch_seqs=4), sliding=Sliding(), slot=Slot(steps=2, loss_on="context")
)


@pytest.mark.parametrize(
    ("stage", "label"), [("score.sliding", "final_int6_sliding_window"), ("score.slot", "final_slot")]
)
def test_the_stage_scores_the_artifact_over_the_bytes_of_the_validation_text(
    random_net: NetFactory,
    corpus_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    label: str,
) -> None:
    corpus = open_corpus(corpus_folder)
    net = random_net(vocab_size=corpus.vocab_size)
    packed = pack_weights(net.state_dict(), PackConfig(small_numel=10**9))
    write_container(tmp_path / "artifact.bin", packed)
    net.load_state_dict({name: weight.float() for name, weight in packed.items()})
    other = SimpleNamespace(build=lambda: random_net(9, vocab_size=corpus.vocab_size))
    config = SimpleNamespace(net=other, score=SCORE)
    job = Job(config=config, seed=1, corpus=str(corpus_folder), stage=stage, inputs={"pack": str(tmp_path)})
    metrics = score_stage(job, tmp_path, Gang())

    tokens = np.fromfile(corpus_folder / "val_0.bin", dtype="<u2", offset=1024)
    stream = Stream(tokens=tokens)
    tally = Tally(stream, np.ones(len(tokens) - 1, dtype=np.int64), Gang())
    scorer = SCORE.sliding if stage == "score.sliding" else SCORE.slot
    assert scorer is not None
    scorer.score_stream(net, stream, SCORE.windows, tally, Gang())
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(corpus_folder / "tiny.model"))
    starts = [*np.flatnonzero(tokens == 1), len(tokens)]
    documents = [tokens[start + 1 : stop].tolist() for start, stop in itertools.pairwise(starts)]
    text_bytes = sum(len(tokenizer.decode(document).encode()) for document in documents)

    assert metrics["tokens"] == len(tokens) - 1
    assert metrics["text_bytes"] == text_bytes
    assert metrics["scored_twice"] == metrics["exposed"] == 0
    assert 0 <= metrics["off_one"] < 1e-5
    n, first = len(tokens) - 1, SCORE.windows.seq_len
    fitted = [
        {"kind": "scored", "first": 0, "stop": first},  # the first window has no context to fit on
        {"kind": "scored", "first": first, "stop": n, "fitted_ahead": 0},
    ]
    whole = [{"kind": "scored", "first": 0, "stop": n}]
    assert json.loads((tmp_path / "exposure.json").read_text()) == (whole if stage == "score.sliding" else fitted)
    lines = re.findall(r"^scored:(\d+)% running_bpb:([\d.]+)$", (said := capsys.readouterr().out), re.MULTILINE)
    assert lines[-1] == ("100", f"{metrics['val_bpb']:.4f}")
    assert metrics["val_loss_nats"] == pytest.approx(float(tally.nats.mean()), rel=1e-9)
    assert metrics["val_bpb"] == pytest.approx(float(tally.nats.sum()) / math.log(2) / text_bytes, rel=1e-9)
    assert metrics["eval_s"] > 0
    exact = re.search(rf"^{label}_exact val_loss:([\d.]+) val_bpb:([\d.]+)$", said, re.MULTILINE)
    assert exact is not None
    assert [float(number) for number in exact.groups()] == pytest.approx(
        [metrics["val_loss_nats"], metrics["val_bpb"]], abs=1e-8
    )


def test_weights_of_another_shape_are_refused(random_net: NetFactory, corpus_folder: Path, tmp_path: Path) -> None:
    write_container(tmp_path / "artifact.bin", {"embedding": torch.zeros(3, 3)})
    config = SimpleNamespace(net=SimpleNamespace(build=random_net), score=SCORE)
    job = Job(config=config, seed=1, corpus=str(corpus_folder), stage="score.sliding", inputs={"pack": str(tmp_path)})
    with pytest.raises(RuntimeError, match="embedding"):
        score_stage(job, tmp_path, Gang())
