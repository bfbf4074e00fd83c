"""``python tests/bench/training.py [--device cuda]``: training tokens a second, ours against a plain loop, in pairs.

Plain is what one writes first: the same network uncompiled, its loss from float32 logits, Muon matrix by matrix,
``torch.optim.AdamW`` and the average weight by weight, batches made when they are needed, the loss read every step.
Both take the same steps from the same weights; the test beside this holds that they give the same losses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.batches import Batches
from model.gang import Gang
from model.net.gpt import GPT
from model.optim.groups import route
from model.optim.muon import NEWTON_SCHULZ
from model.optim.schedule import momentum_at
from model.train import TrainConfig, fit, rate_scale
from sweeps.recipes.pr1303 import pr1303
from sweeps.recipes.tiny import tiny


class PlainMuon:
    """Muon of one matrix after the other, in float32."""

    def __init__(self, matrices: list[Tensor], config: TrainConfig) -> None:
        self.matrices, self.config = matrices, config.optim
        self.buffers = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self, scale: float, momentum: float) -> None:
        a, b, c = NEWTON_SCHULZ
        for weight, buffer in zip(self.matrices, self.buffers, strict=True):
            assert weight.grad is not None
            buffer.mul_(momentum).add_(weight.grad)
            update = weight.grad + momentum * buffer
            x = update.bfloat16() if update.is_cuda else update
            x = x.T if len(x) > len(x.T) else x
            x = x / (x.norm() + 1e-7)
            for _ in range(self.config.muon_steps):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            x = x.T if len(weight) > len(weight.T) else x
            lr = self.config.matrix_lr * scale
            weight.mul_(1 - lr * self.config.muon_wd)
            weight.add_(x.to(weight.dtype), alpha=-lr * max(1.0, len(weight) / len(weight.T)) ** 0.5)


def plain_training(net: GPT, batches: Batches, config: TrainConfig, device: torch.device) -> tuple[list[float], float]:
    """Losses and seconds of the loop that one writes first."""
    routed, optim = route(net, config.optim), config.optim
    muon = PlainMuon(routed["matrices"], config)
    adam = torch.optim.AdamW(
        [{"params": routed["tables"], "lr": optim.embed_lr}, {"params": routed["scalars"], "lr": optim.scalar_lr}],
        betas=(optim.beta1, optim.beta2),
        eps=optim.adam_eps,
        weight_decay=optim.adam_wd,
    )
    peaks = [group["lr"] for group in adam.param_groups]
    average = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    losses = []
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for step in range(config.steps):
        scale = rate_scale(config, step, step / config.steps)
        inputs, targets = (half.to(device) for half in batches(step))
        total = 0.0
        for x, y in zip(inputs.split(config.micro_seqs), targets.split(config.micro_seqs), strict=True):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
                logits = net.logits(net.hidden(x))
                loss = F.cross_entropy(logits.flatten(0, 1), y.flatten()) * (len(x) / len(inputs))
            loss.backward()
            total += loss.item()
        losses.append(total)
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip)
        momentum = momentum_at(step, optim.muon_momentum_start, optim.muon_momentum, optim.muon_momentum_warmup_steps)
        muon.step(scale, momentum)
        for group, peak in zip(adam.param_groups, peaks, strict=True):
            group["lr"] = peak * scale
        adam.step()
        net.zero_grad(set_to_none=True)
        for name, weight in net.named_parameters():
            average[name].mul_(config.ema_decay).add_(weight.detach(), alpha=1 - config.ema_decay)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return losses, time.perf_counter() - started


def sizes(device: torch.device, steps: int, warmup_steps: int) -> tuple[GPT, TrainConfig]:
    """A network and its training: ``tiny`` on a CPU; on a GPU #1303's, with the batch of one rank of 8."""
    config = (pr1303() if device.type == "cuda" else tiny()).config
    tokens = config.train.batch_tokens // (8 if device.type == "cuda" else 1)
    train = replace(
        config.train,
        minutes=0.0,
        steps=steps,
        warmup_steps=warmup_steps,
        warmdown_steps=0,
        batch_tokens=tokens,
        log_every=10**6,
    )
    torch.manual_seed(0)
    return config.net.build().to(device), train


def compare(device: torch.device, steps: int, warmup_steps: int, pairs: int) -> dict[str, object]:
    """Tokens a second of both sides, the median of their ratios, and how far their losses lie apart."""
    net, config = sizes(device, steps, warmup_steps)
    tokens = np.random.default_rng(0).integers(0, 1000, 40 * config.batch_tokens + 1).astype(np.uint16)
    batches = Batches(tokens=tokens, seq_len=config.seq_len, batch_seqs=config.batch_seqs)
    ours_s, plain_s, apart = [], [], 0.0
    for pair in range(pairs + 1):
        print(f"bench: pair {pair} of {pairs}{'' if pair else ', which does not count'}", file=sys.stderr, flush=True)
        curve, seconds = fit(deepcopy(net), batches, config, Gang(device=device))
        plain, plain_seconds = plain_training(deepcopy(net), batches, config, device)
        apart = max(apart, *(abs(a - b) for a, b in zip(curve, plain, strict=True)))
        if pair:
            ours_s.append(seconds)
            plain_s.append(plain_seconds)
    done = steps * config.batch_tokens
    ratios = [plain / ours for plain, ours in zip(plain_s, ours_s, strict=True)]
    return {
        "speedup": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "ours_tokens_per_s": done / statistics.median(ours_s),
        "plain_tokens_per_s": done / statistics.median(plain_s),
        "max_abs_diff_nats": apart,
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "batch_tokens": config.batch_tokens,
        "where": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device("cpu")
    print(json.dumps(compare(device, args.steps, 3, args.pairs), indent=1))


if __name__ == "__main__":
    main()
