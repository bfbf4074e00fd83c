from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.slot.gradient import plain_gradient


def by_autograd(z: torch.Tensor, offset: torch.Tensor, targets: torch.Tensor, cap: float) -> torch.Tensor:
    """The gradient of the summed loss with respect to c times the offset, in float64."""
    offset = offset.double().requires_grad_()
    logits = cap * torch.tanh(z.double() + offset[:, None])
    F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-1).backward()
    assert offset.grad is not None
    return offset.grad / cap


SHAPES = [(1, 1, 5), (3, 7, 50), (2, 33, 64), (4, 17, 130)]


def some_rows(shape: tuple[int, int, int], padded: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    G, R, V = shape
    z, offset, targets = torch.randn(G, R, V) * 0.4, torch.randn(G, V) * 0.1, torch.randint(0, V, (G, R))
    if padded:
        targets[-1, R // 2 :] = -1
    return z, offset, targets


@pytest.mark.parametrize("cap", [5.0, 30.0, 120.0])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_in_torch_is_autograd_s(shape: tuple[int, int, int], padded: bool, cap: float) -> None:
    z, offset, targets = some_rows(shape, padded)
    found = torch.full(offset.shape, torch.nan)
    plain_gradient(z, offset, targets, cap, found)
    torch.testing.assert_close(found.double(), by_autograd(z, offset, targets, cap), atol=2e-5, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton, which is on Linux only")
def test_the_kernel_is_its_twin_in_torch(tmp_path: Path) -> None:
    cases = [(*some_rows(shape, padded), cap) for shape in SHAPES for padded in (False, True) for cap in (30.0, 120.0)]
    torch.save(cases, tmp_path / "cases.pt")
    script = Path(__file__).with_name("interpreted_kernel.py")
    environ = os.environ | {"PYTHONPATH": str(script.parents[3])}
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "cases.pt"), str(tmp_path / "found.pt")], env=environ, check=True
    )
    for (z, offset, targets, cap), found in zip(cases, torch.load(tmp_path / "found.pt"), strict=True):
        expected = torch.empty(offset.shape)
        plain_gradient(z, offset, targets, cap, expected)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cap", [30.0, 120.0])
@pytest.mark.parametrize("shape", [*SHAPES, (32, 64, 1024), (8, 96, 8192)])
def test_the_kernel_on_a_gpu_is_its_twin_on_a_cpu(shape: tuple[int, int, int], cap: float) -> None:
    from model.slot.gradient_triton import triton_gradient

    z, offset, targets = some_rows(shape, padded=False)
    found, expected = torch.empty(offset.shape, device="cuda"), torch.empty(offset.shape)
    triton_gradient(z.cuda(), offset.cuda(), targets.cuda(), cap, found)
    plain_gradient(z, offset, targets, cap, expected)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
