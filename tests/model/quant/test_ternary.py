from __future__ import annotations

from typing import Any

import pytest
import torch

from model.quant.ternary import Pentanary, Ternary


@pytest.mark.parametrize(("kind", "top"), [(Ternary, 1), (Pentanary, 2)])
@pytest.mark.parametrize("threshold", [0.7, 1.1])
def test_thresholds_and_scales_are_the_field_s(kind: Any, top: int, threshold: float) -> None:
    weight = torch.randn(9, 50) * torch.logspace(-3, 1, 9)[:, None]
    q, scale = kind(threshold=threshold).round(weight, 6)
    for row, ints, step in zip(weight.tolist(), q.tolist(), scale.tolist(), strict=True):
        t1 = threshold * sum(map(abs, row)) / len(row)
        expected = []
        for w in row:
            size = 0 if abs(w) <= t1 else 1 if abs(w) <= 2 * t1 or top == 1 else 2
            expected.append(size if w > 0 else -size)
        assert ints == expected
        best = sum(w * i for w, i in zip(row, ints, strict=True)) / sum(i * i for i in ints)
        assert step == pytest.approx(best, rel=1e-3, abs=2**-24)
    assert q.dtype == torch.int8
    assert scale.dtype == torch.float16


@pytest.mark.parametrize("kind", [Ternary, Pentanary])
def test_a_row_of_zeros_comes_back_as_zeros(kind: Any) -> None:
    q, scale = kind().round(torch.zeros(2, 7), 6)
    assert not q.any()
    assert torch.isfinite(scale).all()


def test_five_steps_are_nearer_than_three() -> None:
    weight = torch.randn(20, 200)
    errors = [
        float((weight - q * scale.float()[:, None]).square().mean())
        for q, scale in (kind().round(weight, 6) for kind in (Ternary, Pentanary))
    ]
    assert errors[1] < 0.7 * errors[0] < 0.2


@pytest.mark.parametrize("kind", [Ternary, Pentanary])
def test_a_threshold_out_of_range_is_refused_by_name_with_its_value(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}.threshold.*-1"):
        kind(threshold=-1)
