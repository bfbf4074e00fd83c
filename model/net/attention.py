"""Causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with RMS-normed queries and keys and a
learned gain per query head (QK gain: openai/parameter-golf #1125, 1.5 by default, 4.0 in #1303, 5.25 in #1488).

The kernel is chosen once per process: FlashAttention 3, else 2, else torch's own; :func:`attention_kernel` names it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.net.linear import Linear
from model.net.norm import rms_norm
from model.net.parts import Seen
from model.net.rope import rotate

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """H query heads over K key-value heads; the output matrix starts at zero."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        qk_gain: float,
        value_mixes: Iterable[nn.Module] = (),
        finish: nn.Module | None = None,
    ) -> None:
        """``value_mixes`` change the values in turn, ``finish`` what was found (:mod:`model.net.parts`)."""
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.query = Linear(dim, dim)
        self.key = Linear(dim, kv_heads * self.head_dim)
        self.value = Linear(dim, kv_heads * self.head_dim)
        self.out = Linear(dim, dim, zero_init=True)
        self.qk_gain = nn.Parameter(torch.full((heads,), qk_gain))
        self.value_mixes = nn.ModuleList(value_mixes)
        self.finish = finish

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, first_row: int = 0, seen: Seen | None = None) -> Tensor:
        """x (B, T, D) -> (B, T - first_row, D): what the rows from ``first_row`` on see of all rows up to them."""
        B, T, D = x_BTD.shape
        q = rms_norm(self.query(x_BTD[:, first_row:]).view(B, T - first_row, self.heads, self.head_dim))
        k = rms_norm(self.key(x_BTD).view(B, T, self.kv_heads, self.head_dim))
        v = self.value(x_BTD)
        for mix in self.value_mixes:
            v = mix(v, seen)
        v = v.view(B, T, self.kv_heads, self.head_dim)
        q = rotate(q, cos[first_row:], sin[first_row:]) * self.qk_gain.to(q.dtype)[:, None]
        k = rotate(k, cos, sin)
        y = pick_kernel(q.dtype, q.device.type)(q, k, v)
        if self.finish is not None:
            y = self.finish(y, v[:, first_row:])
        return self.out(y.reshape(B, T - first_row, D))


def sdpa(q_BTHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor) -> Tensor:
    """torch's scaled dot-product attention, causal: queries (B, R, H, d) of the last R of T rows, keys and values
    (B, T, K, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHd, k_BTKd, v_BTKd))
    if q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
    from torch.nn.attention.bias import causal_lower_right  # with torch's compiler: a second, and few need it

    mask = causal_lower_right(q.shape[2], k.shape[2])  # torch's is_causal would align the queries with the first keys
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def flash_3(q_BTHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor) -> Tensor:
    """FlashAttention 3. Like 2 it takes fp16 or bf16 only, and gives queries fewer than keys the last places."""
    from flash_attn_interface import flash_attn_func

    return _first(flash_attn_func(q_BTHd, k_BTKd, v_BTKd, causal=True))


def flash_2(q_BTHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor) -> Tensor:
    """FlashAttention 2."""
    from flash_attn import flash_attn_func

    return _first(flash_attn_func(q_BTHd, k_BTKd, v_BTKd, causal=True))


KERNELS: Mapping[str, Kernel] = {"flash-attn-3": flash_3, "flash-attn-2": flash_2, "torch-sdpa": sdpa}
"""The kernels by the name that the log shows."""


@functools.cache
def installed_kernel() -> str:
    """The newest FlashAttention that can be imported here, else torch's own."""
    for name, module in (("flash-attn-3", "flash_attn_interface"), ("flash-attn-2", "flash_attn")):
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        return name
    return "torch-sdpa"


def attention_kernel(device: str) -> str:
    """The name of the kernel that ``device`` uses in fp16 or bf16."""
    return installed_kernel() if device == "cuda" else "torch-sdpa"


def whole_graph(function: Callable[..., Tensor], backend: str = "inductor") -> Callable[..., Tensor]:
    """``function`` compiled as one graph. The choice of a kernel isn't traced: an import that fails breaks a graph."""
    torch.compiler.assume_constant_result(attention_kernel)  # here: it imports the compiler, which takes a second
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=False, fullgraph=True, backend=backend)
    return compiled


def pick_kernel(dtype: torch.dtype, device: str) -> Kernel:
    """FlashAttention where it can run, torch's own elsewhere."""
    return KERNELS[attention_kernel(device)] if dtype in (torch.float16, torch.bfloat16) else sdpa


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Some releases return (output, log-sum-exp)."""
    return result[0] if isinstance(result, tuple) else result
