from __future__ import annotations

from typing import Any

import pytest
import torch

from model.adapt.adam import AdamRule
from model.adapt.muon_ttt import MuonRule
from model.adapt.rule import Rule
from model.adapt.sgd import SgdRule

SHAPES = [(6, 4), (5,), (2, 3), (6, 4), (1,)]


def steps(rule: Rule, weights: list[torch.Tensor], gradients: list[list[torch.Tensor]], lr: float) -> None:
    """One step of ``rule`` from each list of gradients, in place."""
    parameters = [torch.nn.Parameter(weight) for weight in weights]
    optimiser = rule.optimiser(parameters)
    for group in optimiser.param_groups:
        group["lr"] = lr
    for given in gradients:
        for parameter, gradient in zip(parameters, given, strict=True):
            parameter.grad = gradient.clone()
        optimiser.step()


def some(count: int) -> list[list[torch.Tensor]]:
    return [[torch.randn(shape) for shape in SHAPES] for _ in range(count)]


def test_sgd_is_a_running_sum_of_gradients() -> None:
    (weights,), gradients = some(1), some(3)
    found = [weight.clone() for weight in weights]
    steps(SgdRule(momentum=0.8), found, gradients, 0.1)
    for i, weight in enumerate(weights):
        moved = sum(0.8**age * gradients[t - age][i] for t in range(3) for age in range(t + 1))
        torch.testing.assert_close(found[i], weight - 0.1 * moved)


def newton_schulz(gradient: torch.Tensor, iterations: int) -> torch.Tensor:
    """By singular values: each goes through the quintic on its own."""
    u, s, vh = torch.linalg.svd(gradient.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vh


@pytest.mark.parametrize("iterations", [1, 5])
def test_muon_orthogonalises_matrices_without_memory_or_a_factor_for_shape_and_takes_vectors_as_they_are(
    iterations: int,
) -> None:
    (weights,), gradients = some(1), some(2)
    found = [weight.clone() for weight in weights]
    steps(MuonRule(iterations=iterations), found, gradients, 0.1)
    for i, weight in enumerate(weights):
        per_step = [newton_schulz(g[i], iterations) if weight.ndim > 1 else g[i].double() for g in gradients]
        torch.testing.assert_close(found[i].double(), weight - 0.1 * sum(per_step), atol=1e-5, rtol=1e-5)


def test_muon_keeps_no_state() -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 3))
    optimiser = MuonRule().optimiser([parameter])
    parameter.grad = torch.randn(3, 3)
    optimiser.step()
    assert not optimiser.state


def test_adamw_is_loshchilov_s_written_out() -> None:
    (weights,), gradients = some(1), some(4)
    found = [weight.clone() for weight in weights]
    steps(AdamRule(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1), found, gradients, 0.02)
    for i, weight in enumerate(weights):
        w, mean, square = weight.double(), torch.zeros_like(weight.double()), torch.zeros_like(weight.double())
        for t, given in enumerate(gradients, 1):
            w = w * (1 - 0.02 * 0.1)
            mean = 0.8 * mean + 0.2 * given[i]
            square = 0.95 * square + 0.05 * given[i].double() ** 2
            w = w - 0.02 * (mean / (1 - 0.8**t)) / ((square / (1 - 0.95**t)).sqrt() + 1e-6)
        torch.testing.assert_close(found[i].double(), w, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (SgdRule, {"momentum": 1.0}),
        (MuonRule, {"iterations": 0}),
        (AdamRule, {"beta1": 1.0}),
        (AdamRule, {"beta2": -0.1}),
        (AdamRule, {"eps": 0.0}),
        (AdamRule, {"weight_decay": -1.0}),
    ],
)
def test_a_knob_out_of_range_is_refused_with_its_value(kind: Any, change: dict[str, float]) -> None:
    ((_, value),) = change.items()
    with pytest.raises(ValueError, match=f"rule.*{value}"):
        kind(**change)
