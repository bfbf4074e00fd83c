"""The networks of the field written out once more: plain torch over a dict of weights, a loop over layers, no classes.

What a script of the field computes, by its formulas (openai/parameter-golf #1303, #1176, #1423, #1394, #1493, #1529);
only the names of the weights are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """The constants at the top of a script."""

    layers: int
    heads: int
    kv_heads: int
    rope_dims: int
    rope_base: float = 10_000.0
    ntk_from: int = 1024
    ln_scale: bool = True
    mlp_slope: float = 0.5
    cap: float = 30.0
    order: Sequence[int] = ()
    """The layers as they run; empty is one after the other."""
    skips: bool = True
    gated_skips: bool = False
    bigram_rows: int = 0
    trigram: bool = False
    smear: bool = False
    smear_bos: int = -1
    value_layers: Sequence[int] = ()
    value_residual: bool = False
    xsa_layers: Sequence[int] = ()
    parallel_from: int = 99
    lanes_from: int = 99


def rms(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps)


def int32(number: int) -> int:
    """As a 32-bit integer wraps around."""
    return (number + 2**31) % 2**32 - 2**31


def hashed(ids: Tensor, rows: int, order: int) -> Tensor:
    """One position at a time, in plain integers."""
    out = torch.empty_like(ids)
    for b, row in enumerate(ids.tolist()):
        for t in range(len(row)):
            mixed = 0
            for back, factor in enumerate((36313, 27191, 51497)[:order]):
                mixed ^= int32(factor * row[t - back])
            out[b, t] = mixed % (rows - 1) if t >= order - 1 else rows - 1
    return out


def embedded(w: Weights, ids: Tensor, script: Script) -> Tensor:
    x = w["embedding"][ids]
    if script.bigram_rows:
        found = w["bigram.table"][hashed(ids, script.bigram_rows, 2)]
        if script.trigram:
            found = found + w["bigram.table"][hashed(ids, script.bigram_rows, 3)]
        x = x + w["bigram.scale"] * (found @ w["bigram.project.weight"].T)
    x = rms(x)
    if script.smear:
        g = torch.sigmoid(w["smear.gate"])
        before = torch.zeros_like(x)
        for t in range(1, x.shape[1]):
            before[:, t] = torch.where((ids[:, t] == script.smear_bos)[:, None], 0.0, x[:, t - 1])
        x = (1 - g) * x + g * before
    return x


def turned(x: Tensor, script: Script) -> Tensor:
    """x (B, T, heads, d) after partial RoPE with the NTK rule as coded."""
    T, rd = x.shape[1], script.rope_dims
    base = script.rope_base
    if script.ntk_from < T:
        base = base * (T / script.ntk_from) ** (rd / (rd - 2))
    out = x.clone()
    for j in range(rd // 2):
        angle = torch.arange(T) / base ** (2 * j / rd)
        cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
        a, b = x[..., j], x[..., j + rd // 2]
        out[..., j], out[..., j + rd // 2] = a * cos + b * sin, -a * sin + b * cos
    return out


def attended(w: Weights, layer: int, x: Tensor, ids: Tensor, first: dict[str, Tensor], script: Script) -> Tensor:
    name = f"blocks.{layer}.attention"
    B, T, D = x.shape
    d = D // script.heads
    q = turned(rms((x @ w[f"{name}.query.weight"].T).view(B, T, script.heads, d)), script)
    k = turned(rms((x @ w[f"{name}.key.weight"].T).view(B, T, script.kv_heads, d)), script)
    v = x @ w[f"{name}.value.weight"].T
    first.setdefault("v", v)
    mixes = int(script.value_residual and layer == 0)  # the first layer's keeps them
    if layer in script.value_layers:
        own = w[f"{name}.value_mixes.{mixes}.scale"]
        table = w["value_embedding.table"][ids] @ w["value_embedding.project.weight"].T
        v = v + own * (w["value_embedding.scale"] * table)
        mixes += 1
    if script.value_residual and layer > 0:
        g = torch.sigmoid(w[f"{name}.value_mixes.{mixes}.gate"])
        v = (1 - g) * v + g * first["v"]
    v = v.view(B, T, script.kv_heads, d)
    y = torch.empty(B, T, script.heads, d)
    behind = torch.ones(T, T).tril().bool()
    for h in range(script.heads):
        kv = h // (script.heads // script.kv_heads)
        gained = q[:, :, h] * w[f"{name}.qk_gain"][h]
        scores = (gained @ k[:, :, kv].mT / math.sqrt(d)).masked_fill(~behind, -math.inf)
        y[:, :, h] = scores.softmax(-1) @ v[:, :, kv]
        if layer in script.xsa_layers:
            own = v[:, :, kv] / v[:, :, kv].norm(dim=-1, keepdim=True)
            y[:, :, h] -= (y[:, :, h] * own).sum(-1, keepdim=True) * own
    return y.reshape(B, T, D) @ w[f"{name}.out.weight"].T


def fed(w: Weights, layer: int, x: Tensor, script: Script) -> Tensor:
    up = x @ w[f"blocks.{layer}.mlp.up.weight"].T
    return torch.where(up > 0, up, script.mlp_slope * up) ** 2 @ w[f"blocks.{layer}.mlp.down.weight"].T


@torch.no_grad()
def script_logits(w: Weights, ids: Tensor, script: Script) -> Tensor:
    """The logits (B, T, V) of token ids (B, T), float32."""
    x = x0 = embedded(w, ids, script)
    lane: Tensor | None = None
    order = list(script.order) or list(range(script.layers))
    encoder = len(order) // 2 if script.skips else 0
    stack: list[Tensor] = []
    first: dict[str, Tensor] = {}
    for place, i in enumerate(order):
        if place >= encoder and stack:
            j = place - encoder
            skip = w["skip_scale"][j] * stack.pop()
            if script.gated_skips:
                g = torch.sigmoid(w["skip_gates.gates"][j])
                x = (1 - g) * skip + g * x
            else:
                x = x + skip
        c = 1 / math.sqrt(i + 1) if script.ln_scale else 1.0
        m, s_a, s_m = w[f"blocks.{i}.mix"], w[f"blocks.{i}.attention_scale"], w[f"blocks.{i}.mlp_scale"]
        x_in = m[0] * x + m[1] * x0
        a = s_a * attended(w, i, c * rms(x_in), ids, first, script)
        if i >= script.lanes_from:
            lane = x if lane is None else lane
            r, p = w[f"blocks.{i}.keep"], w[f"blocks.{i}.post"]
            b = s_m * fed(w, i, c * rms(lane), script)
            x, lane = r[0] * x + p[0, 0] * a + p[1, 0] * b, r[1] * lane + p[0, 1] * a + p[1, 1] * b
        elif i >= script.parallel_from:
            x = x_in + a + s_m * fed(w, i, c * rms(x_in), script)
        else:
            y = x_in + a
            x = y + s_m * fed(w, i, c * rms(y), script)
        if place < encoder:
            stack.append(x)
    x = x if lane is None else (x + lane) / 2
    head = w["head.weight"] if "head.weight" in w else w["embedding"]
    return script.cap * torch.tanh(rms(x) @ head.T / script.cap)
