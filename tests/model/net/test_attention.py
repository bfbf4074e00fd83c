from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.net.attention import Attention, attention_kernel, installed_kernel, pick_kernel, sdpa, whole_graph
from model.net.rope import Rope, rotate

CPU = torch.device("cpu")


def random_attention(heads: int, kv_heads: int, head_dim: int = 8) -> Attention:
    torch.manual_seed(heads * 10 + kv_heads)
    attention = Attention(heads * head_dim, heads, kv_heads, qk_gain=1.5)
    with torch.no_grad():
        attention.out.weight.normal_()
        attention.qk_gain.uniform_(0.5, 4.0)
    return attention


def per_head_loop(attention: Attention, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """One query head and one position at a time."""
    B, T, D = x.shape
    d = D // attention.heads
    group = attention.heads // attention.kv_heads

    def normed(row: torch.Tensor) -> torch.Tensor:
        return row / (row.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()

    def head(weight: torch.Tensor, index: int) -> torch.Tensor:
        return x @ weight[index * d : (index + 1) * d].T

    outputs = []
    for h in range(attention.heads):
        q = rotate(normed(head(attention.query.weight, h))[:, :, None], cos, sin)[:, :, 0] * attention.qk_gain[h]
        k = rotate(normed(head(attention.key.weight, h // group))[:, :, None], cos, sin)[:, :, 0]
        v = head(attention.value.weight, h // group)
        y = torch.empty(B, T, d)
        for b in range(B):
            for t in range(T):
                weights = ((k[b, : t + 1] @ q[b, t]) / math.sqrt(d)).softmax(0)
                y[b, t] = weights @ v[b, : t + 1]
        outputs.append(y)
    return torch.cat(outputs, dim=-1) @ attention.out.weight.T


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (2, 2), (4, 2), (6, 2), (4, 1)])
@torch.no_grad()
def test_grouped_query_attention_equals_a_loop_over_heads(heads: int, kv_heads: int) -> None:
    attention = random_attention(heads, kv_heads)
    x = torch.randn(2, 7, heads * 8)
    cos, sin = Rope(4, 10_000.0, 1024)(7, CPU)
    torch.testing.assert_close(attention(x, cos, sin), per_head_loop(attention, x, cos, sin), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_attention_is_causal() -> None:
    attention = random_attention(4, 2)
    x = torch.randn(1, 9, 32)
    cos, sin = Rope(8, 10_000.0, 1024)(9, CPU)
    before = attention(x, cos, sin)
    for t in range(9):
        changed = x.clone()
        changed[0, t] = torch.randn(32)
        after = attention(changed, cos, sin)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.isclose(after[:, t], before[:, t], atol=1e-3).all()


@torch.no_grad()
def test_the_gain_multiplies_queries_head_by_head() -> None:
    attention = random_attention(4, 2)
    x = torch.randn(1, 6, 32)
    cos, sin = Rope(8, 10_000.0, 1024)(6, CPU)
    seen = {}

    def spy(module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen["y"] = args[0]

    attention.out.register_forward_hook(spy)
    attention(x, cos, sin)
    before = seen["y"].view(6, 4, 8).clone()
    attention.qk_gain[2] = 0.0
    attention(x, cos, sin)
    after = seen["y"].view(6, 4, 8)
    # Queries of zero weigh all earlier values alike; the other heads don't notice.
    v = (x @ attention.value.weight.T).view(6, 2, 8)[:, 1]
    running_mean = v.cumsum(0) / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(after[:, 2], running_mean, atol=1e-5, rtol=1e-4)
    for head in (0, 1, 3):
        assert torch.equal(after[:, head], before[:, head])


def test_a_new_attention_has_its_gain_and_returns_zero() -> None:
    attention = Attention(32, 4, 2, qk_gain=5.25)
    cos, sin = Rope(8, 10_000.0, 1024)(5, CPU)
    assert attention.qk_gain.tolist() == [5.25] * 4
    assert attention(torch.randn(2, 5, 32), cos, sin).abs().max() == 0


def test_flash_attention_is_never_picked_on_cpu_or_in_float32() -> None:
    for dtype, device in ((torch.float32, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "cuda")):
        assert pick_kernel(dtype, device) is sdpa
    assert attention_kernel("cpu") == "torch-sdpa"


STAND_IN = """
from torch.nn.functional import scaled_dot_product_attention

def flash_attn_func(q, k, v, causal):
    assert causal
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = {scale} * scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
    return (y, None) if {pair} else y
"""
"""Takes a library's place, and shows in the result that it ran."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported; the choice is made anew."""
    monkeypatch.syspath_prepend(tmp_path)
    installed_kernel.cache_clear()
    yield tmp_path
    installed_kernel.cache_clear()
    for name in ("flash_attn_interface", "flash_attn"):
        sys.modules.pop(name, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU machine may have the real ones")
@pytest.mark.parametrize(
    ("modules", "name", "scale"),
    [
        ({"flash_attn_interface": 3, "flash_attn": 2}, "flash-attn-3", 3),
        ({"flash_attn": 2}, "flash-attn-2", 2),
        ({}, "torch-sdpa", 1),
    ],
)
def test_the_newest_installed_attention_is_chosen_and_a_graph_stays_whole(
    installed: Path, modules: dict[str, int], name: str, scale: int
) -> None:
    """Also where none is installed: an import that fails inside a graph would break it."""
    for module, factor in modules.items():
        text = STAND_IN.format(scale=factor, pair=module == "flash_attn_interface")
        (installed / f"{module}.py").write_text(text, encoding="utf-8")
    assert attention_kernel("cuda") == name
    assert attention_kernel("cpu") == "torch-sdpa"
    q, k, v = torch.randn(1, 5, 4, 8), torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8)

    def on_a_gpu(*qkv: torch.Tensor) -> torch.Tensor:
        return pick_kernel(torch.bfloat16, "cuda")(*qkv)

    torch._dynamo.reset()
    whole = whole_graph(on_a_gpu, backend="eager")
    torch.testing.assert_close(whole(q, k, v), scale * sdpa(q, k, v))
    assert pick_kernel(torch.float32, "cuda") is sdpa
