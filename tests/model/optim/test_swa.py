from __future__ import annotations

from typing import Any

import pytest
import torch

from model.optim.swa import Swa


def test_the_mean_of_the_snapshots_that_are_due_is_loaded() -> None:
    net = torch.nn.Linear(3, 2)
    average = Swa(every=2, below=0.5).averager(net)
    scales = [1.0, 0.9, 0.7, 0.5, 0.49, 0.3, 0.2, 0.1, 0.0]
    taken = []
    for step, scale in enumerate(scales, 1):
        with torch.no_grad():
            net.weight.add_(torch.randn(2, 3))
        average.update(step, scale)
        if step in (6, 8):
            taken.append(net.weight.detach().double().clone())
    assert average.count == 2
    average.load()
    torch.testing.assert_close(net.weight.detach().double(), sum(taken) / 2, atol=1e-6, rtol=1e-6)


def test_without_a_snapshot_the_last_weights_stay() -> None:
    net = torch.nn.Linear(3, 2)
    before = net.weight.detach().clone()
    average = Swa(every=1, below=0.5).averager(net)
    average.update(1, 0.5)
    average.load()
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("change", [{"every": 0}, {"below": 0.0}, {"below": -1.0}])
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        Swa(**change)
