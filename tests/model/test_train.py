from __future__ import annotations

import copy
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

from model.data.batches import Batches
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPT, GPTConfig
from model.net.linear import Linear
from model.net.recurrence import Recurrence
from model.optim.groups import OptimConfig, build_optimisers
from model.optim.schedule import momentum_at, warmdown
from model.optim.swa import Swa
from model.quant.container import read_container
from model.quant.qat import LateQat
from model.train import TrainConfig, accumulate, fit, rate_scale, train_stage

NetFactory = Callable[..., GPT]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CONFIG = TrainConfig(
    steps=6,
    batch_tokens=64,
    seq_len=16,
    micro_seqs=4,
    warmup_steps=0,
    log_every=2,
    ema_decay=0.8,
    optim=OptimConfig(muon_momentum_warmup_steps=4),
)


def some_batches(config: TrainConfig = CONFIG, seed: int = 0) -> Batches:
    """A stream in which each token mostly follows from the one before, so that there is something to learn."""
    random = np.random.default_rng(seed)
    tokens = [0]
    for noise in random.random(800):
        tokens.append((tokens[-1] * 3 + 1) % 40 if noise < 0.9 else int(noise * 1e6) % 40)
    return Batches(tokens=np.array(tokens, dtype=np.uint16), seq_len=config.seq_len, batch_seqs=config.batch_seqs)


def weights_of(net: GPT) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in net.state_dict().items()}


def fitted(net: GPT, config: TrainConfig = CONFIG) -> tuple[dict[str, torch.Tensor], list[float]]:
    curve, _ = fit(net, some_batches(config), config, Gang())
    return weights_of(net), curve


def all_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_two_runs_give_the_same_weights_and_losses_bit_for_bit(random_net: NetFactory) -> None:
    first, second = fitted(random_net()), fitted(random_net())
    assert all_equal(first[0], second[0])
    assert first[1] == second[1]
    assert not all_equal(first[0], fitted(random_net(seed=1))[0])


def test_training_lowers_the_loss(random_net: NetFactory) -> None:
    _, curve = fitted(random_net(), replace(CONFIG, steps=60))
    assert curve[0] > 3
    assert sum(curve[-5:]) / 5 < 0.75 * curve[0]


def test_the_loop_is_clip_then_step_at_the_scheduled_rates_then_average(random_net: NetFactory) -> None:
    """Written out with autograd on the whole batch; the optimisers themselves have tests of their own."""
    config = replace(CONFIG, grad_clip=0.05, warmdown_frac=0.5, min_lr=0.1)
    found, curve = fitted(random_net(), config)
    net, batches = random_net(), some_batches(config)
    optimisers = build_optimisers(net, config.optim)
    average = {name: p.detach().clone() for name, p in net.named_parameters()}
    for step in range(6):
        inputs, targets = batches(step)
        loss = net.loss(inputs, targets)
        loss.backward()
        assert curve[step] == pytest.approx(loss.item(), abs=1e-5)
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in net.parameters() if p.grad is not None))
        assert norm > 0.05
        for p in net.parameters():
            assert p.grad is not None
            p.grad *= 0.05 / norm
        optimisers.set_rates(warmdown(step / 6, 0.5, 0.1), momentum_at(step, 0.92, 0.99, 4))
        optimisers.step()
        for name, p in net.named_parameters():
            average[name] = 0.8 * average[name] + 0.2 * p.detach()
    for name, weight in average.items():
        torch.testing.assert_close(found[name], weight, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("micro_seqs", [1, 2, 3, 5, 100])
def test_accumulation_over_micro_batches_equals_one_batch(random_net: NetFactory, micro_seqs: int) -> None:
    net = random_net().double()
    inputs, targets = some_batches(replace(CONFIG, batch_tokens=7 * 16))(3)
    expected = net.loss(inputs, targets)
    expected.backward()
    gradients = {name: copy.deepcopy(p.grad) for name, p in net.named_parameters()}
    net.zero_grad()
    total = accumulate(net.loss, inputs, targets, micro_seqs)
    assert total.item() == pytest.approx(expected.item(), abs=1e-6)
    assert not total.requires_grad
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-6, rtol=0)


def test_the_size_of_micro_batches_does_not_change_the_run(random_net: NetFactory) -> None:
    curves = [fitted(random_net(), replace(CONFIG, micro_seqs=size))[1] for size in (1, 3, 4)]
    assert curves[0] == pytest.approx(curves[2], abs=1e-3)
    assert curves[1] == pytest.approx(curves[2], abs=1e-3)


@pytest.mark.parametrize("warmup_steps", [1, 3])
def test_warm_up_leaves_the_result_unchanged(random_net: NetFactory, warmup_steps: int) -> None:
    plain = fitted(random_net())
    warmed = fitted(random_net(), replace(CONFIG, warmup_steps=warmup_steps))
    assert all_equal(plain[0], warmed[0])
    assert plain[1] == warmed[1]


def test_depth_recurrence_trains_flat_before_its_point_and_deep_after_it(
    random_net: NetFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """The curve of a deep run is that of a flat one up to the point, and another one from there on."""
    deep = {"layers": 4, "recurrence": Recurrence(first=1, last=1, loops=1, start=0.5)}
    flat = random_net(layers=4)
    flat.load_state_dict(random_net(**deep).state_dict())
    expected = fitted(flat)[1]
    for warmup_steps in (0, 2):
        net = random_net(**deep)
        curve = fitted(net, replace(CONFIG, warmup_steps=warmup_steps))[1]
        assert curve[:3] == expected[:3]
        assert min(abs(a - b) for a, b in zip(curve[3:], expected[3:], strict=True)) > 1e-4
        assert net.deep, "what is scored is the deep one"
        assert capsys.readouterr().out.count("layer_loop:enabled step:3 frac:0.500\n") == 1


def test_a_warmdown_over_steps_takes_so_many_and_no_other_rates(random_net: NetFactory) -> None:
    """Over the last 3 of 6 steps it is that over the last half; a longer one than the run begins below the peak."""
    half = fitted(random_net(), replace(CONFIG, warmdown_frac=0.5))
    steps = fitted(random_net(), replace(CONFIG, warmdown_frac=0.9, warmdown_steps=3))
    for name, weight in half[0].items():
        torch.testing.assert_close(steps[0][name], weight, atol=1e-5, rtol=1e-5)
    scales = [rate_scale(replace(CONFIG, warmdown_steps=12, min_lr=0.2), step, step / 6) for step in range(6)]
    assert scales == pytest.approx([6 / 12, 5 / 12, 4 / 12, 3 / 12, 0.2, 0.2])


def test_under_a_clock_the_step_form_goes_by_the_pace_so_far() -> None:
    """As in the field: remaining time over (steps x elapsed / step), once that is below 1."""
    config = replace(CONFIG, minutes=10.0, warmdown_steps=3500)
    for elapsed_s, step in ((0.0, 0), (1.0, 10), (300.0, 3000), (400.0, 4400), (550.0, 6000), (600.0, 6600)):
        step_s = elapsed_s / max(step, 1)
        remaining_s = 600 - elapsed_s
        expected = remaining_s / (3500 * step_s) if step_s and remaining_s <= 3500 * step_s else 1.0
        assert rate_scale(config, step, elapsed_s / 600) == pytest.approx(expected)


def test_rounding_begins_below_its_threshold_and_is_gone_afterwards(
    random_net: NetFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, warmdown_frac=1.0)
    plain = fitted(random_net(), config)[1]
    for warmup_steps in (0, 2):
        net = random_net()
        curve = fitted(net, replace(config, qat=LateQat(bits=3, threshold=0.6), warmup_steps=warmup_steps))[1]
        assert curve[:3] == plain[:3], "factors 1, 5/6, 4/6"
        assert min(abs(a - b) for a, b in zip(curve[3:], plain[3:], strict=True)) > 1e-4
        assert all(module.rounding is None for module in net.modules() if isinstance(module, Linear))
        assert capsys.readouterr().out.count("late_qat:enabled step:3 scale:0.5000\n") == 1


def test_weight_averaging_that_is_asked_for_is_what_is_packed(random_net: NetFactory) -> None:
    """The mean of the weights after steps 2, 4 and 6, taken from runs that end there."""
    config = replace(CONFIG, warmdown_frac=0.0, ema_decay=0.0)
    averaged = fitted(random_net(), replace(config, swa=Swa(every=2, below=2.0)))[0]
    ends = [fitted(random_net(), replace(config, steps=steps))[0] for steps in (2, 4, 6)]
    for name, weight in averaged.items():
        torch.testing.assert_close(weight, sum(end[name] for end in ends) / 3, atol=1e-6, rtol=1e-6)


class FailingAt:
    """A loss that is NaN at one step (one forward a step)."""

    def __init__(self, net: GPT, step: int, value: float) -> None:
        self.loss, self.step, self.value, self.calls = net.loss, step, value, 0

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.loss(inputs, targets) * (self.value if self.calls == self.step else 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("step", "log_every"), [(1, 100), (3, 1), (4, 2), (6, 100)])
def test_a_loss_that_is_not_finite_stops_the_run_naming_the_step(
    random_net: NetFactory, step: int, log_every: int, value: float
) -> None:
    net = random_net()
    net.loss = FailingAt(net, step, value)  # type: ignore[assignment]
    with pytest.raises(FloatingPointError, match=f"at step {step}\\b"):
        fit(net, some_batches(), replace(CONFIG, log_every=log_every), Gang())


def test_a_loss_that_breaks_between_two_log_lines_stops_the_run_too(random_net: NetFactory) -> None:
    net = random_net()
    net.loss = FailingAt(net, 3, float("nan"))  # type: ignore[assignment]
    with pytest.raises(FloatingPointError):
        fit(net, some_batches(), replace(CONFIG, log_every=100), Gang())


def test_training_by_minutes_stops_by_the_clock_and_not_by_steps(random_net: NetFactory) -> None:
    config = replace(CONFIG, steps=1, minutes=0.4 / 60)
    curve, train_s = fit(random_net(), some_batches(config), config, Gang())
    assert len(curve) > 3
    assert 0.4 <= train_s < 5.0


def test_even_the_shortest_clock_trains_one_step(random_net: NetFactory) -> None:
    config = replace(CONFIG, steps=50, minutes=1e-9)
    assert len(fit(random_net(), some_batches(config), config, Gang())[0]) == 1


def test_log_lines_have_the_field_s_form(random_net: NetFactory, capsys: pytest.CaptureFixture[str]) -> None:
    _, curve = fitted(random_net())
    form = r"^step:(\d+)/(\d+) train_loss:([\d.]+) train_time:(\d+)ms step_avg:([\d.]+)ms$"
    found = re.findall(form, capsys.readouterr().out, re.MULTILINE)
    assert [(int(step), int(of)) for step, of, *_ in found] == [(1, 6), (2, 6), (4, 6), (6, 6)]
    assert [float(line[2]) for line in found] == pytest.approx([curve[i - 1] for i in (1, 2, 4, 6)], abs=1e-4)


def test_other_ranks_log_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Gang(rank=1, world=2).log("a line")
    assert capsys.readouterr().out == ""


def stage_job(corpus_folder: Path, seed: int = 3, **changes: Any) -> Job:
    net = GPTConfig(
        vocab_size=open_corpus(corpus_folder).vocab_size, layers=2, dim=16, heads=4, kv_heads=2, mlp_mult=2, rope_dims=4
    )
    config = SimpleNamespace(net=replace(net, **changes), train=replace(CONFIG, log_every=100))
    return Job(config=config, seed=seed, corpus=str(corpus_folder))


def test_the_stage_writes_weights_and_curve_and_reports_what_they_cost(corpus_folder: Path, tmp_path: Path) -> None:
    job = stage_job(corpus_folder)
    metrics = train_stage(job, tmp_path, Gang())
    curve = json.loads((tmp_path / "curve.json").read_text())
    corpus = open_corpus(corpus_folder)
    torch.manual_seed(3)
    net = job.config.net.build()
    batches = Batches(tokens=corpus.tokens("train"), seq_len=16, batch_seqs=4)
    expected, _ = fit(net, batches, job.config.train, Gang())
    assert curve == pytest.approx(expected, abs=1e-6)
    assert all_equal(read_container(tmp_path / "checkpoint.bin"), weights_of(net))
    assert metrics["train_steps"] == 6
    assert metrics["parameters"] == sum(p.numel() for p in net.parameters())
    assert metrics["train_loss_nats"] == pytest.approx(curve[-1], abs=1e-6)
    assert metrics["step_avg_ms"] == pytest.approx(1000 * metrics["train_s"] / 6)
    assert metrics["tokens_per_s"] == pytest.approx(6 * 64 / metrics["train_s"])


def test_the_seed_decides_the_run(corpus_folder: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        train_stage(stage_job(corpus_folder, seed), tmp_path / name, Gang())
        files.append((tmp_path / name / "checkpoint.bin").read_bytes())
    assert files[0] == files[1] != files[2]


def test_seeds_vary_the_order_of_the_data_only_when_they_are_asked_to(corpus_folder: Path, tmp_path: Path) -> None:
    """From the same first weights (a zero learning rate keeps them): the losses are those of the rows alone."""

    def curve(order: str, order_seed: int | None, seed: int) -> list[float]:
        job = stage_job(corpus_folder, seed)
        job.config.train = replace(CONFIG, order=order, order_seed=order_seed)  # type: ignore[arg-type]
        torch.manual_seed(0)
        net = job.config.net.build()
        job.config.net = SimpleNamespace(vocab_size=job.config.net.vocab_size, build=lambda: copy.deepcopy(net))
        train_stage(job, tmp_path, Gang())
        found: list[float] = json.loads((tmp_path / "curve.json").read_text())
        return found

    for order in ("shuffled", "coprime"):
        assert curve(order, 0, 1) == curve(order, 0, 2) != curve(order, 5, 1)
        assert curve(order, None, 5) == curve(order, 5, 1)
        assert curve(order, None, 1) != curve(order, None, 2)
        assert curve(order, 0, 1) != curve("sequential", 0, 1) == curve("sequential", 0, 2)


def test_an_order_seed_that_would_have_no_say_is_refused() -> None:
    for seed in (None, 7):
        with pytest.raises(ValueError, match=r"train.order_seed=\w+ has no say in the sequential order"):
            TrainConfig(order_seed=seed)
    with pytest.raises(ValueError, match=r"order_seed must be 0 or more.*-1"):
        TrainConfig(order="shuffled", order_seed=-1)


def test_a_network_for_another_tokenizer_is_refused_with_both_sizes(corpus_folder: Path, tmp_path: Path) -> None:
    size = open_corpus(corpus_folder).vocab_size
    with pytest.raises(ValueError, match=f"net.vocab_size is 77, but the tokenizer of tiny has {size}"):
        train_stage(stage_job(corpus_folder, vocab_size=77), tmp_path, Gang())


def test_a_stage_that_diverges_names_the_seed_and_writes_nothing(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = GPT.loss
    monkeypatch.setattr(GPT, "loss", lambda self, x, y: honest(self, x, y) * float("nan"))
    with pytest.raises(FloatingPointError, match=r"(?=.*step 1\b)(?=.*seed\D*1234\b)"):
        train_stage(stage_job(corpus_folder, seed=1234), tmp_path, Gang())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"seq_len": 0},
        {"micro_seqs": 0},
        {"log_every": 0},
        {"batch_tokens": 65},
        {"minutes": -1.0},
        {"warmup_steps": -1},
        {"grad_clip": -0.5},
        {"ema_decay": 1.0},
        {"warmdown_frac": 1.5},
        {"min_lr": -0.25},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
        replace(CONFIG, **change)


@pytest.mark.gpu
@needs_cuda
def test_compiled_bf16_training_on_cuda_lowers_the_loss(random_net: NetFactory) -> None:
    config = replace(CONFIG, steps=60, warmup_steps=2)
    net = random_net(dim=64, rope_dims=8).to("cuda")
    curve, train_s = fit(net, some_batches(config), config, Gang(device=torch.device("cuda", 0)))
    assert sum(curve[-5:]) / 5 < 0.75 * curve[0]
    assert train_s > 0
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.gpu
@needs_cuda
def test_the_first_loss_on_cuda_is_close_to_the_cpu_s(random_net: NetFactory) -> None:
    config = replace(CONFIG, steps=1)
    on_cpu, _ = fit(random_net(dim=64, rope_dims=8), some_batches(config), config, Gang())
    on_cuda, _ = fit(
        random_net(dim=64, rope_dims=8).to("cuda"), some_batches(config), config, Gang(device=torch.device("cuda", 0))
    )
    assert on_cuda == pytest.approx(on_cpu, abs=0.03)
