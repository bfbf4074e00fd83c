"""What SLOT costs: against the plain implementation of the field's scripts, and beside the network's forward.

python -m model.bench slot --threads 2          (or: caddie bench slot --json)
"""

from __future__ import annotations

import math
import platform
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.bench.pairs import ratio
from model.net.gpt import GPT, GPTConfig
from model.score.sliding import hidden_states, log_probs
from model.slot.config import Fit
from model.slot.fit import slot_nats

CAP = 30.0
FIT = Fit(steps=24, lr=0.012, lr_min=0.001)
"""SLOT-24 of openai/parameter-golf #1313 and #1488."""
GRID = [Fit(steps=steps, lr=lr) for lr in (0.004, 0.008, 0.012, 0.016) for steps in (8, 16, 24, 32)]
"""16 (lr, steps) configurations; 20 steps on average."""


def plain_slot(hidden_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor, mask_BT: Tensor, config: Fit) -> Tensor:
    """SLOT as #1303 computes it: float32 logits of all rows at every step, autograd, torch's AdamW; NLL (B, T)."""
    B, T, D = hidden_BTD.shape
    shift = torch.zeros(B, 1, D, requires_grad=True)
    bias = torch.zeros(B, 1, len(head_VD), requires_grad=True)
    adam = torch.optim.AdamW(
        [shift, bias],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )

    def nats() -> Tensor:
        logits = CAP * torch.tanh((F.linear(hidden_BTD + shift, head_VD) + bias) / CAP)
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="none").view(B, T)

    for step in range(config.steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        adam.param_groups[0]["lr"] = config.lr_min + (config.lr - config.lr_min) * cosine
        adam.zero_grad()
        ((nats() * mask_BT).sum() / mask_BT.sum()).backward()
        adam.step()
    with torch.no_grad():
        return nats()


def windows_of(B: int, T: int, S: int, D: int, V: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normed hidden states, a head with logits of some size, targets, and a mask of the last S of T rows."""
    generator = torch.Generator().manual_seed(0)
    hidden = F.rms_norm(torch.randn(B, T, D, generator=generator), (D,))
    head = torch.randn(V, D, generator=generator) * 3 * D**-0.5
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[:, T - S :] = True
    return hidden, head, torch.randint(0, V, (B, T), generator=generator), mask


def against_plain(B: int, T: int, S: int, pairs: int) -> dict[str, Any]:
    """Speed and difference of the engine against :func:`plain_slot` at D = 512, V = 1024."""
    hidden, head, targets, mask = windows_of(B, T, S, D=512, V=1024)
    found: dict[str, Tensor] = {}

    def plain() -> None:
        found["plain"] = plain_slot(hidden, head, targets, mask, FIT)[mask]

    def engine() -> None:
        (found["engine"],) = slot_nats(hidden, head, targets, mask, [FIT], cap=CAP)

    timed = ratio(f"plain against engine, T={T} S={S}", plain, engine, pairs)
    return asdict(timed) | {"max_abs_diff_nats": float((found["plain"] - found["engine"]).abs().max())}


def beside_forward(B: int, T: int, S: int, pairs: int) -> dict[str, Any]:
    """What SLOT adds to the sliding pass of a network of #1303's size, and what 16 configurations cost against one."""
    config = GPTConfig()
    net = GPT(config).eval()
    ids = torch.randint(0, config.vocab_size, (B, T + 1))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    context = T - S

    def sliding() -> None:
        log_probs(net, hidden_states(net, inputs, context))

    def slot(configs: list[Fit], on_context: bool = False) -> None:
        first = 0 if on_context else context
        hidden = hidden_states(net, inputs, first)
        row = torch.arange(first, T).expand(B, -1)
        loss = row < context if on_context else row >= context
        slot_nats(hidden, net.embedding, targets[:, first:], loss, configs, cap=CAP, scored_BT=row >= context)

    return {
        "scored": asdict(ratio("SLOT-24 against sliding", lambda: slot([FIT]), sliding, pairs)),
        "context": asdict(ratio("SLOT-24 on context against sliding", lambda: slot([FIT], True), sliding, pairs)),
        "grid16": asdict(ratio("16 configurations against one", lambda: slot(GRID), lambda: slot([FIT]), pairs)),
        "parameters": config.parameters,
    }


def measure(threads: int, pairs: int) -> dict[str, Any]:
    """All figures; the named ones first, what they rest on in ``detail``."""
    torch.set_num_threads(threads)
    short, long = against_plain(4, 1024, 96, pairs), against_plain(4, 2048, 64, pairs)
    beside = beside_forward(4, 2048, 64, pairs)
    return {
        "speedup_t1024_s96": short["median"],
        "speedup_t2048_s64": long["median"],
        "max_abs_diff_nats": max(short["max_abs_diff_nats"], long["max_abs_diff_nats"]),
        "overhead_vs_forward": beside["scored"]["median"] - 1,
        "overhead_context_vs_forward": beside["context"]["median"] - 1,
        "grid16_vs_one": beside["grid16"]["median"],
        "detail": {"t1024_s96": short, "t2048_s64": long, "beside_forward": beside},
        "where": {"machine": platform.machine(), "threads": threads, "pairs": pairs, "torch": torch.__version__},
    }
