from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.quant.rtn import round_rows, unround_rows

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.floats(-100, 100, width=32),
)
bit_widths = st.integers(2, 8)


@given(weight=matrices, bits=bit_widths)
def test_integers_stay_in_the_symmetric_range_of_their_bits(weight: np.ndarray, bits: int) -> None:
    q, scale = round_rows(torch.from_numpy(weight), bits)
    assert q.dtype == torch.int8
    assert scale.dtype == torch.float16
    assert q.shape == weight.shape
    assert scale.shape == weight.shape[:1]
    assert q.abs().max() <= 2 ** (bits - 1) - 1
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()


@given(weight=matrices, bits=bit_widths, size=st.sampled_from([1.0, 1e-2, 1e-4, 1e-6, 1e-8]))
@example(weight=np.array([[1.0, -0.5, 0.25]], dtype=np.float32), bits=8, size=1e-5)
def test_no_weight_is_off_by_more_than_half_its_row_s_scale(weight: np.ndarray, bits: int, size: float) -> None:
    w = torch.from_numpy(weight * np.float32(size))
    q, scale = round_rows(w, bits)
    error = (unround_rows(q, scale).double() - w.double()).abs()
    assert (error <= scale.double()[:, None] / 2 * (1 + 1e-5)).all()


@given(weight=matrices, bits=bit_widths)
def test_every_weight_gets_the_nearest_of_its_row_s_steps(weight: np.ndarray, bits: int) -> None:
    q, scale = round_rows(torch.from_numpy(weight), bits)
    top = 2 ** (bits - 1) - 1
    grid = np.arange(-top, top + 1)
    for row, ints, step in zip(weight, q.tolist(), scale.tolist(), strict=True):
        for w, i in zip(row.tolist(), ints, strict=True):
            assert abs(w - i * step) <= np.abs(w - grid * step).min() + 1e-5 * step


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_row_s_scale_is_its_largest_weight_over_the_largest_integer_in_float16(bits: int) -> None:
    weight = torch.randn(20, 30) * torch.logspace(-2, 1, 20)[:, None]
    _, scale = round_rows(weight, bits)
    expected = weight.abs().max(dim=1).values.double() / (2 ** (bits - 1) - 1)
    torch.testing.assert_close(scale.double(), expected, atol=0, rtol=2**-10)


def test_rounding_what_was_rounded_changes_nothing() -> None:
    first = unround_rows(*round_rows(torch.randn(8, 40), 6))
    torch.testing.assert_close(unround_rows(*round_rows(first, 6)), first, atol=0, rtol=2e-3)


def test_a_row_of_zeros_comes_back_as_zeros() -> None:
    weight = torch.zeros(2, 5)
    weight[1, 2] = 3.0
    restored = unround_rows(*round_rows(weight, 6))
    assert torch.equal(restored[0], torch.zeros(5))
    assert restored[1, 2].item() == pytest.approx(3.0, rel=1e-3)


def test_rows_do_not_know_each_other() -> None:
    weight = torch.randn(6, 10)
    together = unround_rows(*round_rows(weight, 5))
    apart = torch.cat([unround_rows(*round_rows(row[None], 5)) for row in weight])
    assert torch.equal(together, apart)
