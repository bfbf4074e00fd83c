"""A small network of the same make, with weights that make every branch matter, so that no GPU is paid for."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from model.net.gpt import GPT
from model.train import GPTBuilder

SMALL = {"layers": 3, "dim": 32, "heads": 2, "kv_heads": 1, "rope_dims": 16}
TWIN_SEED = 20


def twin_config(net: GPTBuilder) -> GPTBuilder:
    """``net`` with fewer layers and a smaller width; the vocabulary and every technique stay."""
    config: Any = net
    known = {field.name for field in fields(config)}
    small = {name: min(size, getattr(config, name)) for name, size in SMALL.items() if name in known}
    if {"heads", "kv_heads"} <= small.keys() and config.kv_heads == config.heads:
        small["kv_heads"] = small["heads"]
    if "dim" in small and small["dim"] < SMALL["dim"]:
        return net  # smaller than the twin already
    parts = {name: part.shrunk(small["layers"]) for name, part in getattr(config, "parts", {}).items()}
    twin: GPTBuilder = replace(config, **small, **parts)
    return twin


def build_twin(net: GPTBuilder) -> GPT:
    """The twin of ``net`` on the CPU, always with the same weights; its logits are some nats apart, not uniform."""
    torch.manual_seed(TWIN_SEED)
    twin = twin_config(net).build().eval()
    generator = torch.Generator().manual_seed(TWIN_SEED)
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name == "embedding":
                weight.copy_(noise * 3 * weight.shape[1] ** -0.5)  # hidden states have the norm sqrt(D)
            elif weight.ndim == 2 and name.endswith(".weight"):
                weight.copy_(noise * 1.2 * weight.shape[1] ** -0.5)
            else:
                weight.add_(noise * 0.3)  # gates and scales: neither 0, which would cut a branch off, nor all alike
    return twin


def weight_digests(net: torch.nn.Module) -> dict[str, str]:
    """SHA-256 of each tensor of the state."""
    return {name: _sha256(tensor) for name, tensor in net.state_dict().items()}


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    ).hexdigest()
