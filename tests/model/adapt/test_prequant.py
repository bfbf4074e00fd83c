from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.adapt.adam import AdamRule
from model.adapt.prequant import Prequant
from model.adapt.sgd import SgdRule
from model.adapt.stage import AdaptConfig, prequant_stage
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPT
from model.quant.container import read_container, write_container
from model.score.exposure import Event, Exposure
from model.score.stream import Stream
from model.train import TrainConfig

NetFactory = Callable[..., GPT]
PREQUANT = Prequant(lr=0.01, epochs=3, batch_seqs=3, freeze_blocks=0)


def some_stream(targets: int) -> Stream:
    return Stream(tokens=np.random.default_rng(0).integers(0, 40, targets + 1).astype(np.uint16))


def weights_of(net: GPT) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in net.state_dict().items()}


def adapted(net: GPT, config: Prequant, stream: Stream, length: int = 8) -> tuple[dict[str, float], Exposure]:
    exposure = Exposure()
    return config.adapt(net, stream, length, exposure, Gang()), exposure


def test_a_run_equals_its_loops_written_out_with_torch_s_adamw_and_a_cosine_by_epochs(random_net: NetFactory) -> None:
    """11 sequences of 8 and a tail of 3 targets, in steps of 3, 3, 3 and 2."""
    stream, net, found = some_stream(91), random_net(), random_net()
    # An eps above the noise of gradients near zero: without it AdamW makes whole steps of them.
    config = replace(PREQUANT, grad_clip=0.5, rule=AdamRule(eps=1e-3))
    metrics, _ = adapted(found, config, stream)
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    adam = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.0, eps=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=3, eta_min=0.001)
    losses = []
    for _ in range(3):
        losses = []
        for first in range(0, 11, 3):
            starts = [8 * row for row in range(first, min(first + 3, 11))]
            adam.zero_grad()
            rows = torch.stack([tokens[start : start + 9] for start in starts])
            loss = F.cross_entropy(net.logits(net.hidden(rows[:, :-1])).flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
            losses += [loss.item()] * len(starts)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            adam.step()
        cosine.step()
    assert metrics == {"prequant_loss_nats": pytest.approx(sum(losses) / 11, abs=1e-4)}
    for name, weight in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, atol=1e-4, rtol=0)


def test_rates_fall_by_epochs_from_lr_towards_a_tenth() -> None:
    rates = [replace(PREQUANT, epochs=4).rate(epoch) for epoch in range(5)]
    assert rates == pytest.approx([0.01, 0.001 + 0.009 * (2 + math.sqrt(2)) / 4, 0.0055, 0.0023180195, 0.001])


def test_the_loss_on_the_stream_falls(random_net: NetFactory, capsys: pytest.CaptureFixture[str]) -> None:
    adapted(random_net(), replace(PREQUANT, epochs=6), some_stream(90))
    form = r"^prequant_ttt:epoch (\d)/6 loss:([\d.]+) time:[\d.]+s$"
    lines = re.findall(form, capsys.readouterr().out, re.MULTILINE)
    assert [int(epoch) for epoch, _ in lines] == [1, 2, 3, 4, 5, 6]
    losses = [float(loss) for _, loss in lines]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("freeze_blocks", [0, 1])
def test_frozen_blocks_and_the_embedding_stay_and_all_else_moves(random_net: NetFactory, freeze_blocks: int) -> None:
    net = random_net()
    before = weights_of(net)
    adapted(net, replace(PREQUANT, freeze_blocks=freeze_blocks, rule=AdamRule(weight_decay=0.5)), some_stream(90))
    stay = {name for name in before if name == "embedding" or name.startswith("blocks.0.")} if freeze_blocks else set()
    assert {name for name, weight in net.state_dict().items() if torch.equal(weight, before[name])} == stay


def test_no_epochs_change_nothing_and_note_nothing(random_net: NetFactory) -> None:
    net = random_net()
    before = weights_of(net)
    metrics, exposure = adapted(net, replace(PREQUANT, epochs=0), some_stream(90))
    assert metrics == {}
    assert exposure.events == []
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())


def test_a_length_of_its_own_cuts_the_stream_anew(random_net: NetFactory) -> None:
    _, exposure = adapted(random_net(), replace(PREQUANT, seq_len=20), some_stream(90))
    assert exposure.events == [Event(kind="trained", first=0, stop=80)]


def test_a_stream_shorter_than_a_sequence_is_refused_with_both_lengths(random_net: NetFactory) -> None:
    with pytest.raises(ValueError, match="7 validation targets are fewer than one sequence of 8"):
        adapted(random_net(), PREQUANT, some_stream(7))


def test_a_loss_that_is_not_finite_stops_naming_the_epoch(random_net: NetFactory) -> None:
    net, honest, calls = random_net(), GPT.loss, []

    def failing(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return honest(net, inputs, targets) * (math.nan if len(calls) == 6 else 1.0)

    net.loss = failing  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 2 of 3"):
        adapted(net, PREQUANT, some_stream(90))  # 11 sequences: 4 steps an epoch


def test_the_stage_adapts_the_checkpoint_and_notes_what_it_saw(
    random_net: NetFactory, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = open_corpus(corpus_folder)
    net = random_net(vocab_size=corpus.vocab_size)
    (tmp_path / "train").mkdir()
    write_container(tmp_path / "train" / "checkpoint.bin", net.state_dict())
    config = SimpleNamespace(
        net=SimpleNamespace(build=lambda: random_net(9, vocab_size=corpus.vocab_size)),
        train=TrainConfig(batch_tokens=64, seq_len=16),
        adapt=AdaptConfig(prequant=PREQUANT),
    )
    job = Job(config=config, seed=1, corpus=str(corpus_folder), inputs={"train": str(tmp_path / "train")})
    metrics = prequant_stage(job, tmp_path, Gang())
    stream = Stream(tokens=corpus.tokens("val"))
    expected, _ = adapted(net, PREQUANT, stream, 16)
    assert metrics["prequant_loss_nats"] == pytest.approx(expected["prequant_loss_nats"], abs=1e-6)
    assert metrics["prequant_s"] > 0
    found = read_container(tmp_path / "checkpoint.bin")
    assert all(torch.equal(found[name], weight) for name, weight in net.state_dict().items())
    trained = {"kind": "trained", "first": 0, "stop": stream.targets // 16 * 16}
    assert json.loads((tmp_path / "exposure.json").read_text()) == [trained]
    assert re.search(r"^prequant_ttt:done elapsed=[\d.]+s$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.0},
        {"lr_floor": 1.5},
        {"epochs": -1},
        {"seq_len": -8},
        {"batch_seqs": 0},
        {"micro_seqs": 0},
        {"freeze_blocks": -1},
        {"grad_clip": -1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"adapt\.prequant.*{name}.*{value}"):
        replace(PREQUANT, **change)


def test_the_update_rule_is_a_choice(random_net: NetFactory) -> None:
    net = random_net()
    before = weights_of(net)
    adapted(net, replace(PREQUANT, rule=SgdRule()), some_stream(90))
    assert not any(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
