from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.net.gpt import GPT
from model.net.linear import Linear
from model.quant.qat import LateQat, straight_through
from model.quant.rtn import round_rows, unround_rows
from model.train import set_rounding

NetFactory = Callable[..., GPT]


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_training_computes_with_what_packing_makes_of_a_matrix(bits: int) -> None:
    weight = torch.randn(12, 40) * torch.logspace(-4, 1, 12)[:, None]
    packed = unround_rows(*round_rows(weight, bits))
    rounded = LateQat(bits=bits).rounding()(weight)
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((rounded - packed).abs() <= step * 1e-2 * 2 ** (bits - 1)).float().mean() > 0.99  # scales in float16
    assert ((rounded - weight).abs() <= step / 2 * 1.001).all()
    assert len(rounded[0].unique()) <= 2**bits - 1


def test_the_field_s_floor_is_the_step_of_a_row_without_large_weights() -> None:
    weight = torch.rand(4, 20) * 0.1
    steps = LateQat(floor=1 / 31).rounding()(weight) * 31
    torch.testing.assert_close(steps, (weight * 31).round(), atol=1e-4, rtol=0)


def test_the_gradient_goes_straight_through() -> None:
    weight = torch.randn(3, 5, requires_grad=True)
    slope = torch.randn(3, 5)
    (straight_through(weight, 31, 0.0) * slope).sum().backward()
    assert torch.equal(weight.grad, slope)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_rounding_stays_alive_under_torch_compile(random_net: NetFactory, backend: str) -> None:
    """Compiled before it is turned on, as training does; the field's flag is a constant to the compiler."""
    net, ids = random_net(), torch.randint(0, 40, (2, 8))
    torch._dynamo.reset()
    compiled = torch.compile(net.loss, dynamic=False, fullgraph=True, backend=backend)
    plain = compiled(ids, ids).item()
    set_rounding(net, LateQat(bits=3))
    rounded = compiled(ids, ids)
    rounded.backward()
    by_hand = random_net()
    for module in by_hand.blocks.modules():
        if isinstance(module, Linear):
            step = module.weight.data.abs().amax(1, keepdim=True) / 3
            module.weight.data = (module.weight.data / step).round() * step
    assert rounded.item() == pytest.approx(by_hand.loss(ids, ids).item(), abs=1e-5)
    assert abs(rounded.item() - plain) > 1e-3
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    set_rounding(net, None)
    assert compiled(ids, ids).item() == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("change", [{"bits": 1}, {"bits": 9}, {"threshold": 0.0}, {"floor": -0.1}])
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        LateQat(**change)
