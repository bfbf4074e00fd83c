"""The field's scripts put a floor of 1/31 under a row's step (openai/parameter-golf #175, #1303, #1416); nothing here
does unless a config's own ``floor`` says so.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.quant.clips import ClipSearch, QuantileClip
from model.quant.gptq import feed_errors
from model.quant.pack import PackConfig, pack_weights, unpack_weights
from model.quant.sdclip import SdClip
from model.quant.ternary import Pentanary, Ternary

ROUNDINGS = [
    None,
    ClipSearch(floor=0.0),
    QuantileClip(floor=0.0),
    SdClip(),
    SdClip(sigmas=20.0),
    Ternary(),
    Pentanary(),
]


def relative_error(weight: torch.Tensor, rounding: Any, bits: int) -> float:
    config = PackConfig(small_numel=0, matrix_bits=bits, matrices=rounding)
    restored = unpack_weights(pack_weights({"m": weight}, config))["m"]
    return float((restored - weight).norm() / weight.norm())


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=lambda r: "largest" if r is None else repr(r))
@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_rows_of_tiny_weights_keep_their_relative_error(rounding: Any, bits: int) -> None:
    """Down to where float16 has too few digits for a step."""
    weight = torch.randn(8, 400)
    usual = relative_error(weight, rounding, bits)
    for size in (30.0, 1e-1, 1e-2, 1e-3):
        assert relative_error(size * weight, rounding, bits) == pytest.approx(usual, rel=0.1)


def test_a_tiny_row_beside_a_large_one_keeps_its_relative_error() -> None:
    weight = torch.randn(2, 400) * torch.tensor([[10.0], [0.002]])
    restored = unpack_weights(pack_weights({"m": weight}, PackConfig(small_numel=0, matrices=SdClip())))["m"]
    errors = (restored - weight).norm(dim=1) / weight.norm(dim=1)
    assert errors[1] == pytest.approx(float(errors[0]), rel=0.1)


def test_error_feedback_has_no_floor_either() -> None:
    x = torch.randn(300, 80) @ torch.randn(80, 80)
    weight = torch.randn(4, 80)
    found = []
    for size in (1.0, 2.0**-9):
        _, scale = SdClip().round(size * weight, 6)
        found.append(feed_errors(size * weight, scale, 31, x.T @ x, 0.01, True))
    assert (found[0] != found[1]).float().mean() < 0.02


def test_the_field_s_floor_would_be_seen() -> None:
    weight = torch.randn(8, 400)
    floored = ClipSearch(floor=1.0)
    assert relative_error(0.01 * weight, floored, 6) > 5 * relative_error(weight, floored, 6)
