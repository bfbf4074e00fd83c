from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.net.rope import Rope, rotate

CPU = torch.device("cpu")


def angles(length: int, dims: int, base: float) -> torch.Tensor:
    """Position times frequency (T, dims/2), in float64."""
    rows = [[t * base ** (-2 * j / dims) for j in range(dims // 2)] for t in range(length)]
    return torch.tensor(rows, dtype=torch.float64)


@given(half=st.integers(2, 6), rest=st.integers(0, 5), length=st.integers(1, 12), seed=st.integers(0, 99))
def test_rotation_is_multiplication_by_a_complex_unit_on_the_first_dims_only(
    half: int, rest: int, length: int, seed: int
) -> None:
    x = torch.randn(2, length, 3, 2 * half + rest, generator=torch.Generator().manual_seed(seed))
    cos, sin = Rope(2 * half, 10_000.0, 1024)(length, CPU)
    turned = rotate(x, cos, sin)
    pairs = torch.complex(x[..., :half].double(), x[..., half : 2 * half].double())
    units = torch.polar(torch.ones(length, half, dtype=torch.float64), -angles(length, 2 * half, 10_000.0))
    expected = pairs * units[None, :, None, :]
    torch.testing.assert_close(turned[..., :half].double(), expected.real, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(turned[..., half : 2 * half].double(), expected.imag, atol=1e-6, rtol=1e-5)
    assert torch.equal(turned[..., 2 * half :], x[..., 2 * half :])


def test_scores_depend_on_the_distance_of_positions_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(8, generator=generator).expand(1, 40, 1, 8) for _ in range(2))
    cos, sin = Rope(6, 100.0, 1024)(40, CPU)
    scores = rotate(q, cos, sin)[0, :, 0] @ rotate(k, cos, sin)[0, :, 0].T
    for distance in range(-30, 31):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)
    assert scores[0].std() > 0.1


def test_rotation_keeps_lengths_and_the_first_position() -> None:
    x = torch.randn(1, 20, 2, 10, generator=torch.Generator().manual_seed(1))
    cos, sin = Rope(8, 10_000.0, 1024)(20, CPU)
    turned = rotate(x, cos, sin)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


@pytest.mark.parametrize("length", [1, 31, 32])
def test_the_base_is_plain_up_to_the_trained_length(length: int) -> None:
    cos, sin = Rope(8, 500.0, 32)(length, CPU)
    expected = angles(length, 8, 500.0)
    torch.testing.assert_close(cos, expected.cos().float())
    torch.testing.assert_close(sin, expected.sin().float())


@pytest.mark.parametrize("length", [33, 64, 100])
def test_beyond_the_trained_length_the_base_grows_by_the_ntk_rule(length: int) -> None:
    cos, sin = Rope(8, 500.0, 32)(length, CPU)
    grown = angles(length, 8, 500.0 * (length / 32) ** (8 / 6))
    torch.testing.assert_close(cos, grown.cos().float())
    torch.testing.assert_close(sin, grown.sin().float())
    assert not torch.allclose(cos, angles(length, 8, 500.0).cos().float(), atol=1e-3)
    # What the rule is for: the slowest pair turns as far over the longer text as it did over the trained length.
    slowest = math.acos(cos[1, -1].item()) * length
    assert slowest == pytest.approx(32 * 500.0 ** (-6 / 8), rel=1e-2)


def test_tables_of_one_length_do_not_depend_on_others_asked_before() -> None:
    rope = Rope(8, 500.0, 32)
    rope(64, CPU)
    again = rope(16, CPU)
    fresh = Rope(8, 500.0, 32)(16, CPU)
    assert torch.equal(again[0], fresh[0])
    assert torch.equal(again[1], fresh[1])
    assert rope.state_dict() == {}
