"""The training step of every small recipe is one graph: what breaks it costs a GPU its speed, and is refused there."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from model.quant.qat import LateQat
from model.train import set_rounding
from sweeps.recipes import RECIPES


def small_networks() -> dict[str, Any]:
    """Each network of the small recipes, by the first that has it."""
    found: dict[str, Any] = {}
    for name in (name for name in RECIPES if "tiny" in name):
        module, _, function = RECIPES[name].partition(":")
        net = getattr(importlib.import_module(module), function)().config.net
        if net not in found.values():
            found[name] = net
    return found


NETWORKS = small_networks()
QUICK = ("tiny", "pr1303_tiny")
"""Tracing takes seconds a network; `make long` traces the others, and all with rounded weights."""
CASES = [
    pytest.param(name, rounded, marks=[] if name in QUICK and not rounded else pytest.mark.long)
    for name in NETWORKS
    for rounded in (False, True)
]


@pytest.mark.parametrize(("name", "rounded"), CASES)
def test_the_fused_loss_of_a_network_is_one_graph_before_and_after_it_deepens(name: str, rounded: bool) -> None:
    net = NETWORKS[name].build()
    ids = torch.randint(0, NETWORKS[name].vocab_size, (2, 17))
    torch._dynamo.reset()
    compiled = torch.compile(net.fused_loss, fullgraph=True, dynamic=False, backend="eager")
    set_rounding(net, LateQat() if rounded else None)
    for progress in net.depths:
        net.at_progress(progress)
        loss = compiled(ids[:, :-1], ids[:, 1:])
        loss.backward()
        plain = net.loss(ids[:, :-1], ids[:, 1:])
        torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)


def test_a_break_would_be_found() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + 1

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(broken, fullgraph=True, backend="eager")(torch.ones(2))
