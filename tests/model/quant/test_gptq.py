from __future__ import annotations

import shutil
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
from model.quant.calibrate import hessians_of, own_rows
from model.quant.clips import ClipSearch
from model.quant.container import read_container, write_container
from model.quant.gptq import Gptq, feed_errors
from model.quant.pack import PackConfig, load_artifact, pack_stage, pack_weights
from model.quant.rtn import round_rows, unround_rows
from model.quant.sdclip import SdClip
from model.quant.ternary import Ternary

NetFactory = Callable[..., GPT]


def correlated_inputs(columns: int, count: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5 + 0.3
    return torch.randn(count, columns, generator=generator) @ mix


def one_at_a_time(
    weight: torch.Tensor, scale: torch.Tensor, top: int, hessian: torch.Tensor, damping: float
) -> torch.Tensor:
    """Optimal brain quantisation in GPTQ's order: after each column the inverse of what is left is worked out anew."""
    weight, hessian = weight.double().clone(), hessian.double().clone()
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.double)
    q = torch.zeros_like(weight)
    left = sorted(range(len(hessian)), key=lambda i: -float(hessian[i, i]))
    while left:
        first, rest = left[0], left[1:]
        inverse = torch.linalg.inv(hessian[left][:, left])
        q[:, first] = torch.round(weight[:, first] / scale.double()).clamp(-top, top)
        error = (weight[:, first] - q[:, first] * scale.double()) / inverse[0, 0]
        weight[:, rest] -= error[:, None] * inverse[0, 1:]
        left = rest
    return q.to(torch.int8)


@pytest.mark.parametrize("columns", [40, 300], ids=["one block", "three blocks"])
def test_blocks_give_what_one_column_at_a_time_gives(columns: int) -> None:
    weight = torch.randn(6, columns)
    _, scale = round_rows(weight, 4)
    x = correlated_inputs(columns)
    hessian = x.T @ x / len(x)
    found = feed_errors(weight, scale, 7, hessian, damping=0.01, act_order=True)
    expected = one_at_a_time(weight, scale, 7, hessian, damping=0.01)
    assert (found != expected).float().mean() < 0.01, "but for ties in float32"
    assert (found - expected).abs().max() <= 1


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_inputs_that_are_not_correlated_give_the_nearest_integers(act_order: bool, size: float) -> None:
    weight = torch.randn(20, 200)
    q, scale = round_rows(weight, 6)
    assert torch.equal(feed_errors(weight, scale, 31, size * torch.eye(200), 0.01, act_order), q)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_a_layer_s_output_is_nearer_than_with_the_nearest_integers(bits: int) -> None:
    weight, x = torch.randn(64, 200), correlated_inputs(200)
    q, scale = round_rows(weight, bits)
    found = feed_errors(weight, scale, 2 ** (bits - 1) - 1, x.T @ x / len(x), 0.01, True)
    errors = [float((x @ (weight - unround_rows(one, scale)).T).square().mean()) for one in (q, found)]
    assert errors[1] < 0.6 * errors[0]
    assert found.abs().max() <= 2 ** (bits - 1) - 1


def test_columns_that_no_input_reaches_are_rounded_as_they_are() -> None:
    x = correlated_inputs(30)
    x[:, [3, 17]] = 0
    weight = torch.randn(5, 30)
    q, scale = round_rows(weight, 5)
    for seen in (x, torch.zeros_like(x)):
        found = feed_errors(weight, scale, 15, seen.T @ seen, 0.01, True)
        assert torch.equal(found[:, [3, 17]], q[:, [3, 17]])


def test_a_hessian_is_the_mean_square_of_a_matrix_s_inputs(random_net: NetFactory) -> None:
    net, ids = random_net(layers=2), torch.randint(0, 40, (4, 16))
    found, tokens = hessians_of(net, ids.split(2), Gang())
    assert tokens == 64
    matrices = {name for name, weight in net.named_parameters() if name.endswith(".weight")}
    assert found.keys() == matrices | {"embedding"}
    seen: dict[str, torch.Tensor] = {}
    net.blocks[1].mlp.down.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0], y=output))
    hidden = net.hidden(ids).detach()
    x = seen["x"].detach().flatten(0, 1)
    torch.testing.assert_close(found["blocks.1.mlp.down.weight"], x.T @ x / 64)
    torch.testing.assert_close(found["embedding"], hidden.flatten(0, 1).T @ hidden.flatten(0, 1) / 64)
    assert not any(module._forward_pre_hooks for module in net.modules()), "hooks are taken off again"


def test_an_untied_head_has_the_hidden_states_as_inputs(random_net: NetFactory) -> None:
    net, ids = random_net(tie_embeddings=False), torch.randint(0, 40, (2, 16))
    found, _ = hessians_of(net, [ids], Gang())
    hidden = net.hidden(ids).detach().flatten(0, 1)
    torch.testing.assert_close(found["head.weight"], hidden.T @ hidden / 32)
    assert "embedding" not in found


def test_made_up_text_follows_the_network_and_the_seed(random_net: NetFactory) -> None:
    net = random_net()
    texts = own_rows(net, 300, 3, 0.8, 1, Gang())
    assert texts.shape == (300, 3)
    assert torch.equal(texts, own_rows(net, 300, 3, 0.8, 1, Gang()))
    assert not torch.equal(texts, own_rows(net, 300, 3, 0.8, 2, Gang()))
    with torch.no_grad():
        scaled = net.logits(net.hidden(texts[:, :2]))[:, -1] / 0.8
    drawn = -torch.log_softmax(scaled, -1).gather(1, texts[:, 2:]).mean()
    entropy = torch.distributions.Categorical(logits=scaled).entropy().mean()
    assert float(drawn) == pytest.approx(float(entropy), abs=0.25)
    cold = own_rows(net, 20, 3, 0.01, 1, Gang())
    with torch.no_grad():
        assert torch.equal(cold[:, 2], net.logits(net.hidden(cold[:, :2]))[:, -1].argmax(-1))


def job_for(net: GPT, config: Any, pack: PackConfig, corpus: Path, folder: Path) -> Job:
    (folder / "train").mkdir()
    write_container(folder / "train" / CHECKPOINT, net.state_dict())
    run = SimpleNamespace(pack=pack, net=config, train=SimpleNamespace(seq_len=16))
    return Job(config=run, seed=3, corpus=str(corpus), inputs={"train": str(folder / "train")})


@pytest.mark.parametrize("calibration", ["train", "self"])
def test_the_stage_packs_what_calibration_says_and_never_opens_the_validation_split(
    calibration: Any, random_net: NetFactory, tiny_config: Any, corpus_folder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_folder, corpus)
    (corpus / "val_0.bin").unlink()
    vocab = open_corpus(corpus).vocab_size
    net = random_net(vocab_size=vocab)
    gptq = Gptq(calibration=calibration, batches=2, batch_seqs=3)
    config = PackConfig(small_numel=100, codec="raw", matrices=SdClip(sigmas=3.0), matrix_bits=4, gptq=gptq)
    job = job_for(net, replace(tiny_config, vocab_size=vocab), config, corpus, tmp_path)
    (tmp_path / "out").mkdir()
    metrics = pack_stage(job, tmp_path / "out", Gang())
    assert metrics["calibration_tokens"] == 2 * 3 * 16
    if calibration == "train":
        ids = torch.from_numpy(open_corpus(corpus).tokens("train")[: 6 * 16].astype("int64")).view(6, 16)
    else:
        ids = own_rows(net, 6, 16, 0.8, 3, Gang())
    hessians, _ = hessians_of(net, ids.split(3), Gang())
    expected = pack_weights(net.state_dict(), config, hessians)
    packed = read_container(tmp_path / "out" / ARTIFACT)
    plain = pack_weights(net.state_dict(), replace(config, gptq=None))
    assert all(torch.equal(packed[name], tensor) for name, tensor in expected.items())
    assert any(not torch.equal(packed[name], tensor) for name, tensor in plain.items())
    assert all(torch.equal(packed[name], plain[name]) for name in plain if name.endswith("#scale"))
    assert load_artifact(tmp_path / "out" / ARTIFACT).keys() == net.state_dict().keys()


@pytest.mark.parametrize("rounding", [None, ClipSearch(floor=0.0), SdClip(sigmas=3.0), Ternary()])
def test_any_rounding_s_scales_serve(rounding: Any) -> None:
    weight, x = torch.randn(40, 60), correlated_inputs(60)
    config = PackConfig(small_numel=0, matrix_bits=4, matrices=rounding, gptq=Gptq())
    hessians = {"m": x.T @ x / len(x)}
    plain, fed = pack_weights({"m": weight}, config), pack_weights({"m": weight}, config, hessians)
    assert torch.equal(plain["m#scale"], fed["m#scale"])
    assert fed["m"].abs().max() <= (1 if isinstance(rounding, Ternary) else 7)
    errors = [float((x @ (weight - unround_rows(p["m"], p["m#scale"])).T).square().mean()) for p in (plain, fed)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    "change",
    [{"calibration": "val"}, {"batches": 0}, {"batch_seqs": 0}, {"damping": 0.0}, {"temperature": 0.0}],
    ids=lambda c: next(iter(c)),
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        Gptq(**change)
