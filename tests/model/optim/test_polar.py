from __future__ import annotations

import pytest
import torch

from model.optim.groups import OptimConfig, build_optimisers
from model.optim.muon import orthogonalise
from model.optim.polar import POLAR_EXPRESS, PolarExpress


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_polar_express_is_its_quintics_in_turn_on_each_singular_value(shape: tuple[int, int]) -> None:
    g = torch.randn(1, *shape)
    u, s, v = torch.linalg.svd(g[0].double(), full_matrices=False)
    s = s / (1.02 * s.square().sum().sqrt())
    for a, b, c in POLAR_EXPRESS[:4]:
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(PolarExpress().orthogonal(g, 4)[0].double(), u @ torch.diag(s) @ v, atol=1e-4, rtol=0)


def test_five_iterations_come_closer_to_one_than_newton_schulz_s() -> None:
    g = torch.randn(20, 32, 48)
    off = [
        (torch.linalg.svdvals(x) - 1).abs().amax().item()
        for x in (PolarExpress().orthogonal(g, 5), orthogonalise(g, 5))
    ]
    assert off[0] < 0.15 < off[1]


def test_more_iterations_than_there_are_coefficients_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 5 with Polar Express, got 6"):
        OptimConfig(orthogonaliser=PolarExpress(), muon_steps=6)


def test_muon_takes_the_orthogonaliser_and_the_iterations_of_its_config() -> None:
    net = torch.nn.Module()
    net.blocks = torch.nn.ModuleList([torch.nn.Linear(6, 4, bias=False)])
    net.rest = torch.nn.Parameter(torch.zeros(1))
    weight, g = net.blocks[0].weight, torch.randn(4, 6)
    for orthogonaliser, steps, expected in (
        (None, 3, orthogonalise(g[None], 3)),
        (PolarExpress(), 2, PolarExpress().orthogonal(g[None], 2)),
    ):
        config = OptimConfig(
            orthogonaliser=orthogonaliser, muon_steps=steps, matrix_lr=1.0, muon_wd=0.0, muon_momentum=0.0
        )
        optimisers = build_optimisers(net, config)
        weight.grad, net.rest.grad = g.clone(), torch.zeros(1)
        before = weight.detach().clone()
        optimisers.step()
        torch.testing.assert_close(before - weight.detach(), expected[0], atol=1e-5, rtol=1e-4)
