from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model.quant.clips import ClipSearch, QuantileClip
from model.quant.pack import PackConfig, pack_weights, unpack_weights
from model.quant.sdclip import SdClip


def some_weights(spread: float = 3.0) -> torch.Tensor:
    """Rows of different sizes, with outliers."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(12, 600, generator=generator) * torch.logspace(-2, 0.5, 12)[:, None]
    weight[:, ::97] *= spread
    return weight


def by_hand(weight: torch.Tensor, clips: np.ndarray, floor: float, bits: int) -> tuple[np.ndarray, np.ndarray]:
    top = 2 ** (bits - 1) - 1
    scales = np.maximum(clips / top, floor / top).astype(np.float16)
    q = np.clip(np.round(weight.numpy() / scales.astype(np.float32)[:, None]), -top, top)
    return q, scales


def assert_close(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[np.ndarray, np.ndarray]) -> None:
    """Scales to a step of float16, integers but for ties."""
    np.testing.assert_allclose(found[1].float().numpy(), expected[1].astype(np.float32), rtol=2e-3)
    off = np.abs(found[0].numpy().astype(int) - expected[0])
    assert off.max() <= 1
    assert (off > 0).mean() < 0.02


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_the_search_takes_the_quantile_with_the_least_error_over_the_matrix(floor: float) -> None:
    weight = some_weights()
    tried = []
    for quantile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        q, scales = by_hand(weight, np.quantile(np.abs(weight.numpy()), quantile, axis=1), floor, 6)
        tried.append((float(((weight.numpy() - q * scales[:, None].astype(np.float32)) ** 2).mean()), q, scales))
    _, q, scales = min(tried, key=lambda row: row[0])
    assert_close(ClipSearch(floor=floor).round(weight, 6), (q, scales))


def test_a_table_s_rows_are_cut_at_their_quantile() -> None:
    weight = some_weights()
    clips = np.quantile(np.abs(weight.numpy()), 0.99, axis=1)
    assert_close(QuantileClip(quantile=0.99, floor=0.0).round(weight, 8), by_hand(weight, clips, 0.0, 8))
    assert QuantileClip().round(weight * 0.01, 8)[1].float().tolist() == pytest.approx([1 / 127] * 12, rel=1e-3)


@pytest.mark.parametrize(("sigmas", "bits"), [(12.85, 6), (20.0, 8), (2.0, 4)])
def test_a_row_is_cut_at_a_multiple_of_its_standard_deviation(sigmas: float, bits: int) -> None:
    weight = some_weights()
    clips = sigmas * weight.numpy().std(axis=1, ddof=1)
    assert_close(SdClip(sigmas=sigmas).round(weight, bits), by_hand(weight, clips, 0.0, bits))


def test_the_field_s_floor_costs_small_rows_their_bits() -> None:
    small = some_weights()[:4]
    errors = [
        float((small - q * scale.float()[:, None]).square().mean())
        for q, scale in (SdClip(floor=floor).round(small, 6) for floor in (0.0, 1.0))
    ]
    assert errors[0] * 4 < errors[1]


def test_matrices_and_tables_are_rounded_by_what_the_config_names() -> None:
    weights = {"embedding": some_weights(), "blocks.0.mlp.up.weight": some_weights(), "bigram.table": some_weights()}
    plain = PackConfig(small_numel=0)
    config = PackConfig(small_numel=0, matrices=ClipSearch(), tables=SdClip(sigmas=20.0))
    packed, other = pack_weights(weights, config), pack_weights(weights, plain)
    for name, (q, scale) in {
        "embedding": SdClip(sigmas=20.0).round(weights["embedding"], 8),
        "bigram.table": SdClip(sigmas=20.0).round(weights["bigram.table"], 8),
        "blocks.0.mlp.up.weight": ClipSearch().round(weights["blocks.0.mlp.up.weight"], 6),
    }.items():
        assert torch.equal(packed[name], q)
        assert torch.equal(packed[f"{name}#scale"], scale)
        assert not torch.equal(packed[name], other[name])
        assert torch.equal(unpack_weights(packed)[name], q.float() * scale.float()[:, None])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (ClipSearch, {"floor": -1.0}),
        (QuantileClip, {"quantile": 0.0}),
        (QuantileClip, {"quantile": 1.5}),
        (QuantileClip, {"floor": -0.5}),
        (SdClip, {"sigmas": 0.0}),
        (SdClip, {"floor": float("nan")}),
    ],
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(kind: Any, change: dict[str, float]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        kind(**change)
