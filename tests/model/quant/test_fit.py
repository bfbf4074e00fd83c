from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.data.shards import open_corpus
from model.gang import Gang
from model.job import ARTIFACT, CHECKPOINT, Job
from model.net.gpt import GPT
from model.quant.calibrate import loss_curvature
from model.quant.container import pack_container, write_container
from model.quant.fit import Setting, cheapest, fit_to_room, tried_setting
from model.quant.gptq import Gptq
from model.quant.pack import PackConfig, load_artifact, pack_stage, pack_weights
from model.quant.sdclip import SdClip

NetFactory = Callable[..., GPT]


def some_matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(96, 128, generator=generator) * size for name, size in zip("abc", (1, 0.1, 0.01), strict=True)
    }


def fitted(room: int, curvature: dict[str, torch.Tensor] | None = None, codec: Any = "zstd") -> tuple[int, Any, float]:
    """Size, tensors and estimated loss."""
    matrices = some_matrices()
    config = PackConfig(small_numel=0, codec=codec)
    packed, loss = fit_to_room(
        matrices,
        curvature or {name: torch.ones_like(matrix) for name, matrix in matrices.items()},
        lambda settings: pack_weights(matrices, config, None, settings),
        lambda tensors: len(pack_container(tensors, codec)),
        room,
        lambda line: None,
    )
    return len(pack_container(packed, codec)), packed, loss


@pytest.mark.parametrize("codec", ["zstd", "lzma", "rans"])
@pytest.mark.parametrize("room", [13_000, 20_000, 26_500])
def test_it_lands_within_a_thousandth_below_the_cap_and_never_above(room: int, codec: str) -> None:
    size, _, _ = fitted(room, codec=codec)
    assert 0.999 * room <= size <= room


def test_a_cap_that_needs_no_giving_up_is_left_alone_and_one_too_small_is_refused_by_name() -> None:
    size, packed, _ = fitted(90_000)
    assert size < 45_000
    steps = [packed[name + "#scale"].float().mean() / some_matrices()[name].std() for name in "abc"]
    assert max(steps) < 0.06
    with pytest.raises(ValueError, match=r"fit_to leaves 3000 bytes.* takes \d{4}"):
        fitted(3000)


def test_bytes_go_where_the_loss_minds() -> None:
    curvature = {name: torch.full((96, 128), value) for name, value in zip("abc", (1e-4, 1e-2, 100.0), strict=True)}
    _, even, loss = fitted(20_000, curvature)
    matrices = some_matrices()
    steps = {name: float(even[name + "#scale"].float().mean() / matrices[name].std()) for name in "abc"}
    assert steps["c"] < steps["b"] == pytest.approx(steps["a"], rel=0.3)
    assert loss > 0


def test_more_room_than_the_finest_steps_need_is_left_also_where_the_loss_does_not_mind_a_matrix() -> None:
    curvature = {name: torch.full((96, 128), value) for name, value in zip("abc", (0.0, 1e-9, 1.0), strict=True)}
    packed, tensors, _ = fitted(16_000_000, curvature)
    assert packed < 96 * 128 * 3
    matrices = some_matrices()
    steps = {name: float(tensors[name + "#scale"].float().mean() / matrices[name].std()) for name in "abc"}
    assert steps["c"] < 0.06 < steps["a"]


def test_settings_are_the_best_of_all_at_their_size() -> None:
    """Against all combinations, at the sizes that a price of a byte leads to."""
    random = torch.Generator().manual_seed(3)
    tried = {
        name: [
            Setting(bits=6, step_sd=0.1 * i, size_bytes=1000.0 * scale / i, loss_nats=float(weight * i * i))
            for i in range(1, 7)
        ]
        for name, scale, weight in zip("abcd", (1, 2, 3, 1), torch.rand(4, generator=random).tolist(), strict=True)
    }
    for room in (2000, 3500, 5000):
        chosen = cheapest(tried, room)
        size = sum(one.size_bytes for one in chosen.values())
        assert size <= room
        within = [rows for rows in itertools.product(*tried.values()) if sum(r.size_bytes for r in rows) <= size]
        least = min(sum(row.loss_nats for row in rows) for rows in within)
        assert sum(one.loss_nats for one in chosen.values()) == pytest.approx(least)


def test_a_setting_is_counted_as_it_is_coded() -> None:
    weight, curvature = torch.randn(64, 256), torch.rand(64, 256)
    setting = tried_setting(weight, curvature, 0.5)
    q, scale = SdClip(sigmas=0.5 * (2 ** (setting.bits - 1) - 1)).round(weight, setting.bits)
    assert setting.bits == 5
    torch.testing.assert_close(scale.float(), 0.5 * weight.std(1), rtol=1e-3, atol=0)
    loss = float(((weight - q * scale.float()[:, None]).double().square() * curvature).sum()) / 2
    assert setting.loss_nats == pytest.approx(loss)
    counts = q.unique(return_counts=True)[1].double()
    entropy = float(-(counts * (counts / counts.sum()).log2()).sum()) / 8
    assert setting.size_bytes == pytest.approx(entropy)


def test_the_curvature_is_the_mean_squared_gradient_of_a_sequence_s_sum(random_net: NetFactory) -> None:
    net, ids = random_net(), torch.randint(0, 40, (5, 9))
    x, y = ids[:, :-1], ids[:, 1:]
    found = loss_curvature(net, [(x[:3], y[:3]), (x[3:], y[3:])], Gang())
    expected = {name: torch.zeros_like(weight) for name, weight in net.named_parameters()}
    for row in range(5):
        net.zero_grad()
        (net.loss(x[row : row + 1], y[row : row + 1]) * 8).backward()
        for name, weight in net.named_parameters():
            expected[name] += weight.grad.square() / 8 / 5
    assert found.keys() == expected.keys()
    for name, part in found.items():
        torch.testing.assert_close(part, expected[name])


@pytest.mark.parametrize("gptq", [None, Gptq(batches=1, batch_seqs=2)], ids=["nearest", "gptq"])
def test_the_stage_fits_model_and_code(
    gptq: Any, random_net: NetFactory, tiny_config: Any, corpus_folder: Path, tmp_path: Path
) -> None:
    vocab = open_corpus(corpus_folder).vocab_size
    net = random_net(vocab_size=vocab, dim=64)
    for folder in ("train", "out"):
        (tmp_path / folder).mkdir()
    write_container(tmp_path / "train" / CHECKPOINT, net.state_dict())
    pack = PackConfig(small_numel=100, codec="zstd", fit_to=50_000, code_bytes=10_000, gptq=gptq)
    config = SimpleNamespace(
        pack=pack, net=replace(tiny_config, vocab_size=vocab, dim=64), train=SimpleNamespace(seq_len=16)
    )
    job = Job(config=config, seed=3, corpus=str(corpus_folder), inputs={"train": str(tmp_path / "train")})
    metrics = pack_stage(job, tmp_path / "out", Gang())
    assert 0.999 * 40_000 <= metrics["model_bytes"] <= 40_000
    assert (tmp_path / "out" / ARTIFACT).stat().st_size == metrics["model_bytes"]
    assert metrics["fit_loss_nats"] > 0
    assert load_artifact(tmp_path / "out" / ARTIFACT).keys() == net.state_dict().keys()


def test_code_that_leaves_no_room_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"pack.fit_to=1000 .* pack.code_bytes=2000"):
        PackConfig(fit_to=1000, code_bytes=2000)
