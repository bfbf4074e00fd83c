from __future__ import annotations

import pytest
import torch

from model.optim.ema import Ema


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.997])
def test_average_is_the_closed_form(decay: float) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    history = [[p.detach().double().clone() for p in net.parameters()]]
    ema = Ema(net, decay)
    for _ in range(7):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        history.append([p.detach().double().clone() for p in net.parameters()])
        ema.update()
    ema.load()
    for i, p in enumerate(net.parameters()):
        expected = decay**7 * history[0][i]
        for k in range(1, 8):
            expected = expected + (1 - decay) * decay ** (7 - k) * history[k][i]
        torch.testing.assert_close(p.detach().double(), expected, atol=1e-5, rtol=1e-5)


def test_updating_leaves_the_network_alone_until_load() -> None:
    net = torch.nn.Linear(3, 2)
    before = [p.detach().clone() for p in net.parameters()]
    ema = Ema(net, 0.9)
    ema.update()
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert all(p.requires_grad for p in net.parameters())
