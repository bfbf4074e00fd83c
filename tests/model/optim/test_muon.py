from __future__ import annotations

import pytest
import torch

from model.optim.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 64), (64, 8), (16, 32), (32, 16), (3, 5), (5, 3), (1, 7), (7, 1)])
def test_singular_values_end_near_one_for_wide_and_tall_matrices(shape: tuple[int, int]) -> None:
    for size in (1e-3, 1.0, 1e3):
        values = torch.linalg.svdvals(orthogonalise(size * torch.randn(10, *shape)))
        assert values.min() > 0.6
        assert values.max() < 1.25


def test_singular_vectors_stay() -> None:
    g = torch.randn(1, 6, 10, dtype=torch.float64)
    u, _, v = torch.linalg.svd(g[0], full_matrices=False)
    middle = u.T @ orthogonalise(g)[0] @ v.T
    torch.testing.assert_close(middle, torch.diag(middle.diagonal()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (4, 4)])
def test_newton_schulz_is_its_quintic_on_each_singular_value(shape: tuple[int, int]) -> None:
    g = torch.randn(1, *shape)
    u, s, v = torch.linalg.svd(g[0].double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(orthogonalise(g, 3)[0].double(), u @ torch.diag(s) @ v, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_a_batch_equals_one_by_one(shape: tuple[int, int]) -> None:
    g = torch.randn(5, *shape) * torch.tensor([1e-4, 0.1, 1.0, 10.0, 1e4])[:, None, None]
    single = torch.cat([orthogonalise(one[None]) for one in g])
    torch.testing.assert_close(orthogonalise(g), single, atol=1e-5, rtol=1e-4)


def test_a_zero_gradient_stays_zero() -> None:
    assert orthogonalise(torch.zeros(2, 4, 6)).abs().max() == 0


def test_three_updates_equal_the_written_out_rule() -> None:
    shapes = [(6, 10), (12, 4), (6, 10), (5, 5)]
    starts = [torch.randn(shape) for shape in shapes]
    weights = [torch.nn.Parameter(start.clone()) for start in starts]
    muon = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.2)
    buffers = [torch.zeros(shape) for shape in shapes]
    expected = [start.clone() for start in starts]
    for step in range(3):
        lr, mu = 0.1 / (step + 1), 0.8 + 0.05 * step
        muon.param_groups[0].update(lr=lr, momentum=mu)
        for i, (rows, columns) in enumerate(shapes):
            g = torch.randn(rows, columns)
            weights[i].grad = g.clone()
            buffers[i] = mu * buffers[i] + g
            u = orthogonalise((g + mu * buffers[i])[None])[0]
            tall = (rows / columns) ** 0.5 if rows > columns else 1.0
            expected[i] = expected[i] * (1 - lr * 0.2) - lr * tall * u
        muon.step()
    for weight, right in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), right, atol=1e-5, rtol=1e-4)


def test_an_update_leaves_the_gradient_as_it_was() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6))
    weight.grad = torch.randn(4, 6)
    before = weight.grad.clone()
    muon = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
    muon.step()
    muon.step()
    assert torch.equal(weight.grad, before)


def test_rows_are_made_alike_before_orthogonalisation_only_where_that_is_asked_for() -> None:
    """MuonEq-R: a gradient with rows of very different lengths; without it the large rows decide."""
    g = torch.randn(6, 10, dtype=torch.float64) * 10.0 ** torch.arange(-3, 3)[:, None]
    steps = {}
    for row_normalize in (True, False):
        weight = torch.nn.Parameter(torch.zeros(6, 10, dtype=torch.float64))
        weight.grad = g.clone()
        Muon([weight], lr=1.0, momentum=0.0, weight_decay=0.0, row_normalize=row_normalize).step()
        steps[row_normalize] = -weight.detach()
    even = torch.stack([row / row.square().sum().sqrt() for row in g])
    torch.testing.assert_close(steps[True], orthogonalise(even[None])[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(steps[False], orthogonalise(g[None])[0], atol=1e-6, rtol=0)
    assert not torch.allclose(steps[True], steps[False], atol=0.1)


def test_without_nesterov_the_step_is_the_buffer_s() -> None:
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    muon = Muon([weight], lr=1.0, momentum=0.9, weight_decay=0.0, nesterov=False)
    for g in (first, second):
        weight.grad = g.clone()
        before = weight.detach().clone()
        muon.step()
    expected = orthogonalise((0.9 * first + second)[None])[0]
    torch.testing.assert_close(before - weight.detach(), expected, atol=1e-5, rtol=1e-4)
