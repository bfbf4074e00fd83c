"""Training: from tokens and a seed to the averaged weights. Setup above, the loop below, nothing in between."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from model.data.batches import Batches
from model.data.orders import Order
from model.data.prefetch import BatchAt, prefetched
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import CHECKPOINT, CURVE, Job
from model.net.attention import attention_kernel, whole_graph
from model.net.gpt import GPT
from model.net.linear import Linear
from model.optim.ema import Ema
from model.optim.groups import OptimConfig, build_optimisers
from model.optim.schedule import momentum_at, warmdown, warmdown_over
from model.quant.container import write_container


@runtime_checkable
class WeightRounding(Protocol):
    """Rounded weights in training, once the factor on the learning rates is below ``threshold``."""

    @property
    def threshold(self) -> float: ...
    def rounding(self) -> Callable[[Tensor], Tensor]: ...


class Averager(Protocol):
    """Takes weights in and puts their average back."""

    def update(self, step: int, scale: float) -> None: ...
    def load(self) -> None: ...


@runtime_checkable
class WeightAverage(Protocol):
    """An average of the weights in the place of the EMA."""

    def averager(self, net: torch.nn.Module) -> Averager: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How long, on what batches, by which schedule. Defaults: the field's full size (openai/parameter-golf #1303)."""

    steps: int = 20_000
    """Optimiser steps, unless ``minutes`` is set."""
    minutes: float = 0.0
    """Above 0: training ends by the clock and ``steps`` doesn't count. The field's cap is 10 minutes."""
    batch_tokens: int = 786_432
    seq_len: int = 2048
    micro_seqs: int = 48
    """Sequences of one forward on one rank; a larger local batch is accumulated."""
    order: Order = "sequential"
    """In which order the rows of the stream are trained on: as they lie, shuffled, or by a stride that is coprime to
    their number; each visits every row once an epoch (:mod:`model.data.orders`)."""
    order_seed: int | None = 0
    """Names the shuffle or the stride. None: the run's own seed, so that seeds differ in their data, too; in the field
    they differ in their first weights alone."""
    warmup_steps: int = 20
    """Steps that run before the clock starts and are undone: they pay for compiling. As many again where the network
    becomes another one during training."""
    warmdown_frac: float = 0.583
    """The last part of the clock, or of the steps; 0 is off."""
    warmdown_steps: int = 0
    """Above 0: the warmdown takes so many steps (WARMDOWN_ITERS), and ``warmdown_frac`` doesn't count."""
    min_lr: float = 0.0
    """Floor of the warmdown, as a fraction of the peak rate."""
    grad_clip: float = 0.3
    """Largest global gradient norm; 0 is off."""
    ema_decay: float = 0.997
    """Of the average that is packed; 0 packs the last weights."""
    swa: WeightAverage | None = None
    """An average in its place; then ``ema_decay`` doesn't count."""
    qat: WeightRounding | None = None
    """Rounded weights in the blocks' matrices near the end."""
    log_every: int = 100
    optim: OptimConfig = OptimConfig()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "seq_len", "micro_seqs", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be 1 or more, got {getattr(self, name)}")
        if self.batch_tokens % self.seq_len:
            raise ValueError(
                f"train.batch_tokens={self.batch_tokens} is not a multiple of train.seq_len={self.seq_len}"
            )
        if self.order == "sequential" and self.order_seed != 0:
            raise ValueError(
                f"train.order_seed={self.order_seed} has no say in the sequential order: "
                "set train.order to shuffled or coprime, too"
            )
        if self.order_seed is not None and self.order_seed < 0:
            raise ValueError(f"train.order_seed must be 0 or more, or none for the run's own, got {self.order_seed}")
        if min(self.minutes, self.warmup_steps, self.warmdown_steps, self.grad_clip) < 0:
            raise ValueError(
                f"train: minutes, warmup_steps, warmdown_steps and grad_clip must be 0 or more, "
                f"got {self.minutes}, {self.warmup_steps}, {self.warmdown_steps}, {self.grad_clip}"
            )
        if not 0 <= self.ema_decay < 1 or not 0 <= self.warmdown_frac <= 1 or not 0 <= self.min_lr <= 1:
            raise ValueError(
                f"train: ema_decay must be in [0, 1), warmdown_frac and min_lr in [0, 1], "
                f"got {self.ema_decay}, {self.warmdown_frac}, {self.min_lr}"
            )

    @property
    def batch_seqs(self) -> int:
        return self.batch_tokens // self.seq_len


class TrainedConfig(Protocol):
    """What this stage reads of a run config."""

    @property
    def net(self) -> GPTBuilder: ...
    @property
    def train(self) -> TrainConfig: ...


class GPTBuilder(Protocol):
    """A network's config."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def parameters(self) -> int: ...
    @property
    def layers(self) -> int: ...
    def build(self) -> GPT: ...


def train_stage(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    """Train one seed; writes the averaged weights and the loss curve.

    Returns:
        ``train_s`` (the training clock), ``train_steps``, ``step_avg_ms``, ``train_loss_nats`` (mean of the last
        tenth), ``tokens_per_s``, ``parameters``.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message has the step and the seed.
    """
    config: TrainConfig = job.config.train
    corpus = open_corpus(Path(job.corpus), job.corpus_digest)
    if corpus.vocab_size != job.config.net.vocab_size:
        raise ValueError(
            f"net.vocab_size is {job.config.net.vocab_size}, but the tokenizer of {corpus.name} has {corpus.vocab_size}"
        )
    batches = Batches(
        tokens=corpus.stream("train"),
        seq_len=config.seq_len,
        batch_seqs=config.batch_seqs,
        rank=gang.rank,
        world=gang.world,
        order=config.order,
        seed=job.seed if config.order_seed is None else config.order_seed,
    )
    torch.manual_seed(job.seed)
    net = job.config.net.build().to(gang.device)
    parameters = sum(p.numel() for p in net.parameters())
    gang.log(f"seed:{job.seed}")
    gang.log(f"model_params:{parameters}")
    gang.log(f"world_size:{gang.world} attention:{attention_kernel(gang.device.type)} threads:{job.threads}")
    try:
        curve, train_s = fit(net, batches, config, gang)
    except FloatingPointError as error:
        raise FloatingPointError(f"seed {job.seed}: {error}") from error
    assert curve, "at least one step always runs"
    steps = len(curve)
    if gang.chief:
        write_container(out / CHECKPOINT, net.state_dict())
        (out / CURVE).write_text(json.dumps([round(loss, 6) for loss in curve]) + "\n", encoding="utf-8")
    tail = curve[-max(1, steps // 10) :]
    return {
        "train_s": train_s,
        "train_steps": steps,
        "step_avg_ms": 1000 * train_s / steps,
        "train_loss_nats": sum(tail) / len(tail),
        "tokens_per_s": steps * config.batch_tokens / train_s,
        "parameters": parameters,
    }


def fit(net: GPT, batches: Batches, config: TrainConfig, gang: Gang) -> tuple[list[float], float]:
    """Train ``net`` in place and leave its weight average in it; the global loss of each step, and the clock."""
    with prefetched(batches, gang.device) as batch_at:
        return train_on(net, batch_at, config, gang)


def train_on(net: GPT, batch_at: BatchAt, config: TrainConfig, gang: Gang) -> tuple[list[float], float]:
    """:func:`fit` on the batches that ``batch_at`` gives."""
    optimisers = build_optimisers(net, config.optim)
    loss_of = whole_graph(net.loss) if gang.device.type == "cuda" else net.loss
    losses: list[Tensor] = []

    def one_step(step: int, scale: float, own_s: float = 0.0) -> Tensor:
        gang.beat(own_s)
        inputs, targets = batch_at(step)
        loss = accumulate(loss_of, inputs, targets, config.micro_seqs)
        optimisers.average(list(net.parameters()), gang, config.grad_clip)
        optim = config.optim
        optimisers.set_rates(
            scale,
            momentum_at(step, optim.muon_momentum_start, optim.muon_momentum, optim.muon_momentum_warmup_steps),
        )
        optimisers.step()
        return loss

    if config.warmup_steps:
        before = deepcopy(net.state_dict())
        for depth in net.depths:
            net.at_progress(depth)
            for step in range(config.warmup_steps):
                one_step(step, 1.0)
        if config.qat is not None:
            set_rounding(net, config.qat)
            for step in range(config.warmup_steps):
                one_step(step, 1.0)
            set_rounding(net, None)
        net.load_state_dict(before)
        optimisers = build_optimisers(net, config.optim)
    net.at_progress(0.0)
    average: Averager = Ema(net, config.ema_decay) if config.swa is None else config.swa.averager(net)
    budget_s = config.minutes * 60
    started, elapsed_s, step = training_clock(gang), 0.0, 0

    # Go!
    while elapsed_s < budget_s if budget_s else step < config.steps:
        progress = elapsed_s / budget_s if budget_s else step / config.steps
        if net.at_progress(progress) and progress:
            gang.log(f"layer_loop:enabled step:{step} frac:{progress:.3f}")
        scale = rate_scale(config, step, progress)
        if config.qat is not None and scale < config.qat.threshold and set_rounding(net, config.qat):
            gang.log(f"late_qat:enabled step:{step} scale:{scale:.4f}")
        losses.append(one_step(step, scale, elapsed_s))
        step += 1
        average.update(step, scale)
        last = step == config.steps and not budget_s
        if budget_s or last or step == 1 or step % config.log_every == 0:
            elapsed_s = gang.first(training_clock(gang) - started)
        if last or step == 1 or step % config.log_every == 0:
            loss = float(gang.sum_(losses[-1].clone()) / gang.world)
            check_finite(loss, step)
            # By the clock nobody knows how many there will be: the count that the present pace leads to.
            shown = max(step, round(step * budget_s / elapsed_s)) if budget_s else config.steps
            gang.log(
                f"step:{step}/{shown} train_loss:{loss:.4f} "
                f"train_time:{1000 * elapsed_s:.0f}ms step_avg:{1000 * elapsed_s / step:.2f}ms"
            )

    train_s = elapsed_s  # of the last step, by steps and by clock alike: the report says what the log shows
    if budget_s:
        gang.log(f"stopping_early: wallclock_cap train_time:{1000 * train_s:.0f}ms step:{step}/{step}")
    curve = (gang.sum_(torch.stack(losses)) / gang.world).tolist()
    check_finite(sum(curve), step)
    average.load()
    net.at_progress(1.0)
    set_rounding(net, None)
    return curve, train_s


def rate_scale(config: TrainConfig, step: int, progress: float) -> float:
    """The factor on every learning rate of step ``step`` from 0, at ``progress`` of the clock or the steps."""
    if not config.warmdown_steps:
        return warmdown(progress, config.warmdown_frac, config.min_lr)
    at_this_pace = max(0.0, 1 - progress) * step / progress if progress else math.inf
    left = at_this_pace if config.minutes else config.steps - step
    return warmdown_over(left, config.warmdown_steps, config.min_lr)


def set_rounding(net: GPT, qat: WeightRounding | None) -> bool:
    """Have the blocks' matrices rounded before they are used, or not; whether that is new."""
    rounding = None if qat is None else qat.rounding()
    linears = [module for module in net.blocks.modules() if isinstance(module, Linear)]
    changed = [linear for linear in linears if (linear.rounding is None) != (rounding is None)]
    for linear in changed:
        linear.rounding = rounding
    return bool(changed)


def accumulate(loss_of, inputs: Tensor, targets: Tensor, micro_seqs: int) -> Tensor:  # type: ignore[no-untyped-def]
    """Gradients of the mean loss over all rows (B, T), at most ``micro_seqs`` rows a forward; the detached loss."""
    total = torch.zeros((), device=inputs.device)
    cuda = inputs.device.type == "cuda"
    for x, y in zip(inputs.split(micro_seqs), targets.split(micro_seqs), strict=True):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda):
            loss = loss_of(x, y) * (len(x) / len(inputs))
        loss.backward()
        total += loss.detach()
    return total


def training_clock(gang: Gang) -> float:
    """Seconds, after the device has caught up."""
    if gang.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def check_finite(loss: float, step: int) -> None:
    """Stop at once: a run that diverged can't recover, and its clock costs money."""
    if not abs(loss) < float("inf"):
        raise FloatingPointError(f"the training loss is {loss} at step {step}: lower the learning rates or clip harder")
