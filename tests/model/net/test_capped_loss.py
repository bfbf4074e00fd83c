from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.net.capped_loss import (
    capped_cross_entropy,
    capped_gradient,
    capped_nats,
    plain_loss_gradient,
    plain_nats,
)
from model.net.gpt import GPT

SHAPES = [(1, 1), (1, 5), (7, 64), (33, 130), (5, 1024)]
CAPS = [5.0, 30.0, 120.0]
Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def some_rows(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Rows:
    """Raw logits, some beyond any cap, targets, and a gradient of each loss."""
    R, V = shape
    return (torch.randn(R, V) * 40).to(dtype), torch.randint(0, V, (R,)), torch.randn(R)


def by_autograd(raw: torch.Tensor, targets: torch.Tensor, grad: torch.Tensor, cap: float) -> list[torch.Tensor]:
    """Loss and gradient of torch's own cross-entropy, in float64."""
    raw = raw.double().requires_grad_()
    nats = F.cross_entropy(cap * torch.tanh(raw / cap), targets, reduction="none")
    nats.backward(grad.double())
    assert raw.grad is not None
    return [nats.detach(), raw.grad]


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_are_those_of_capped_logits(shape: tuple[int, int], cap: float) -> None:
    raw, targets, grad = some_rows(shape)
    expected = by_autograd(raw, targets, grad, cap)
    raw.requires_grad_()
    nats = capped_cross_entropy(raw, targets, cap)
    nats.backward(grad)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.detach().double(), expected[0], atol=1e-4, rtol=1e-5)
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad.double(), expected[1], atol=1e-5, rtol=1e-4)


def test_bfloat16_logits_are_summed_in_float32_and_their_gradient_is_bfloat16() -> None:
    raw, targets, grad = some_rows((9, 500), torch.bfloat16)
    expected = by_autograd(raw, targets, grad, 30.0)
    raw.requires_grad_()
    nats = capped_cross_entropy(raw, targets, 30.0)
    nats.backward(grad)
    torch.testing.assert_close(nats.detach().double(), expected[0], atol=1e-4, rtol=1e-5)
    assert raw.grad is not None
    assert raw.grad.dtype == torch.bfloat16
    torch.testing.assert_close(raw.grad, expected[1].bfloat16(), atol=1e-5, rtol=0.01)


def test_both_operations_keep_the_rules_of_compiled_graphs() -> None:
    """torch's own check: schema, shapes without data, and tracing."""
    raw, targets, grad = some_rows((6, 20))
    torch.library.opcheck(capped_nats, (raw, targets, 30.0))
    torch.library.opcheck(capped_gradient, (raw, targets, plain_nats(raw, targets, 30.0)[1], grad, 30.0))


def test_the_network_s_loss_is_the_same_by_either_way(random_net: Callable[..., GPT]) -> None:
    net, ids = random_net(), torch.randint(0, 40, (3, 9))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    expected = net.loss(inputs, targets)
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in net.named_parameters() if weight.grad is not None}
    net.zero_grad()
    fused = net.fused_loss(inputs, targets)
    fused.backward()
    torch.testing.assert_close(fused, expected, atol=1e-6, rtol=1e-6)
    for name, weight in net.named_parameters():
        if name in gradients:
            torch.testing.assert_close(weight.grad, gradients[name], atol=1e-6, rtol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton, which is on Linux only")
def test_the_kernels_are_their_twins_in_torch(tmp_path: Path) -> None:
    types = (torch.float32, torch.bfloat16)
    shapes = SHAPES[:-1]
    cases = [(*some_rows(shape, dtype), cap) for shape in shapes for dtype in types for cap in (30.0, 120.0)]
    torch.save(cases, tmp_path / "cases.pt")
    script = Path(__file__).with_name("interpreted_loss.py")
    environ = os.environ | {"PYTHONPATH": str(script.parents[3])}
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "cases.pt"), str(tmp_path / "found.pt")], env=environ, check=True
    )
    for (raw, targets, grad, cap), found in zip(cases, torch.load(tmp_path / "found.pt"), strict=True):
        compare_with_twins(raw, targets, grad, cap, *found)


def compare_with_twins(
    raw: torch.Tensor,
    targets: torch.Tensor,
    grad: torch.Tensor,
    cap: float,
    nats: torch.Tensor,
    log_sum: torch.Tensor,
    gradient: torch.Tensor,
) -> None:
    expected, expected_sum = plain_nats(raw, targets, cap)
    torch.testing.assert_close(nats, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(log_sum, expected_sum, atol=1e-4, rtol=1e-5)
    twin = plain_loss_gradient(raw, targets, expected_sum, grad, cap)
    assert gradient.dtype == raw.dtype
    coarse = raw.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, twin, atol=1e-5, rtol=0.01 if coarse else 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES, (4096, 1024), (512, 8192)])
def test_the_kernels_on_a_gpu_are_their_twins_on_a_cpu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    raw, targets, grad = some_rows(shape, dtype)
    nats, log_sum = capped_nats(raw.cuda(), targets.cuda(), 30.0)
    gradient = capped_gradient(raw.cuda(), targets.cuda(), log_sum, grad.cuda(), 30.0)
    compare_with_twins(raw, targets, grad, 30.0, nats.cpu(), log_sum.cpu(), gradient.cpu())
