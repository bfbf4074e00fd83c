from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.slot.config import Fit
from model.slot.fit import predict, slot_nats
from model.slot.rows import Head

D, V = 16, 50


def autograd_slot(
    hidden: Tensor, head: Tensor, targets: Tensor, loss: Tensor, cap: float, config: Fit, start: Tensor | None = None
) -> Tensor:
    """SLOT as the field writes it: full logits, a mask, autograd and torch's optimisers; the loss (B, T) of every row.

    In float64: in float32 AdamW blows the noise of gradients near zero up to 5e-5 nats in one of some thousand cases.
    """
    hidden, head = hidden.double(), head.double()
    B, T, _ = hidden.shape
    groups = 1 if config.per == "batch" else B
    begin = torch.zeros(groups, D + V, dtype=torch.float64) if start is None else start.double()
    shift = begin[:, None, :D].clone().requires_grad_(config.shift)
    bias = begin[:, None, D:].clone().requires_grad_(config.bias)
    free = [one for one in (shift, bias) if one.requires_grad]

    def nats() -> Tensor:
        logits = cap * torch.tanh(((hidden + shift) @ head.T + bias) / cap)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(B, T)

    def objective() -> Tensor:
        """Windows with their own parameters don't meet, so a sum of their mean losses fits each to its own."""
        if config.loss_scale == "batch" or config.per == "batch":
            return (nats() * loss).sum() / loss.sum()
        return ((nats() * loss).sum(1) / loss.sum(1).clamp(min=1)).sum()

    if config.optimiser == "lbfgs":
        lbfgs = torch.optim.LBFGS(
            free, lr=config.lr, max_iter=config.steps, history_size=config.history, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            lbfgs.zero_grad()
            value = objective()
            value.backward()
            return value

        lbfgs.step(closure)
        return nats().detach()
    betas = (config.beta1, config.beta2)
    adam = torch.optim.AdamW(free, lr=config.lr, betas=betas, eps=config.eps, weight_decay=config.weight_decay)
    for t in range(config.steps):
        cosine = config.lr_min + 0.5 * (config.lr - config.lr_min) * (1 + math.cos(math.pi * t / config.steps))
        for group in adam.param_groups:
            group["lr"] = cosine if config.schedule == "cosine" else config.lr
        adam.zero_grad()
        objective().backward()
        adam.step()
    return nats().detach()


def some_windows(batch: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, head and targets."""
    generator = torch.Generator().manual_seed(seed)
    hidden = F.rms_norm(torch.randn(batch, length, D, generator=generator), (D,))
    head = torch.randn(V, D, generator=generator)
    return hidden, head, torch.randint(0, V, (batch, length), generator=generator)


def masks(batch: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ragged masks: which rows carry loss, which are scored; every window has both."""
    generator = torch.Generator().manual_seed(seed)
    loss, scored = (torch.rand(batch, length, generator=generator) < 0.6 for _ in range(2))
    loss[:, 0], scored[:, -1] = True, True
    return loss, scored


knobs = st.fixed_dictionaries(
    {
        "parameters": st.sampled_from([(True, True), (True, False), (False, True)]),
        "per": st.sampled_from(["window", "batch"]),
        "steps": st.integers(0, 20),
        "lr": st.sampled_from([0.003, 0.008, 0.012]),
        "lr_min": st.sampled_from([0.0, 0.0008]),
        "schedule": st.sampled_from(["cosine", "constant"]),
        "beta1": st.sampled_from([0.9, 0.3]),
        "beta2": st.sampled_from([0.999, 0.9]),
        "weight_decay": st.sampled_from([1e-8, 0.1]),
        "loss_scale": st.sampled_from(["batch", "window"]),
    }
)


def fit_of(knobs: dict[str, Any]) -> Fit:
    shift, bias = knobs["parameters"]
    return Fit(shift=shift, bias=bias, **{name: value for name, value in knobs.items() if name != "parameters"})


@given(knobs=knobs, batch=st.integers(1, 5), length=st.integers(2, 20), cap=st.sampled_from([5.0, 30.0, 100.0]))
def test_the_written_out_gradient_equals_autograd_with_torch_s_adamw(
    knobs: dict[str, Any], batch: int, length: int, cap: float
) -> None:
    config = fit_of(knobs)
    hidden, head, targets = some_windows(batch, length)
    loss, scored = masks(batch, length, seed=length)
    (found,) = slot_nats(hidden, head, targets, loss, [config], cap=cap, scored_BT=scored)
    expected = autograd_slot(hidden, head, targets, loss, cap, config)[scored]
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("per", ["window", "batch"])
@pytest.mark.parametrize("parameters", [(True, True), (True, False), (False, True)])
def test_l_bfgs_takes_the_steps_that_autograd_takes(per: Any, parameters: tuple[bool, bool]) -> None:
    shift, bias = parameters
    config = Fit(optimiser="lbfgs", per=per, shift=shift, bias=bias, lr=1.0, steps=4, loss_scale="window")
    hidden, head, targets = some_windows(1 if per == "window" else 3, 12)
    loss, scored = masks(len(hidden), 12, seed=1)
    (found,) = slot_nats(hidden, head, targets, loss, [config], cap=30.0, scored_BT=scored)
    expected = autograd_slot(hidden, head, targets, loss, 30.0, config)[scored]
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=0)


def test_l_bfgs_fits_each_window_by_itself() -> None:
    config = Fit(optimiser="lbfgs", lr=1.0, steps=6, loss_scale="window")
    hidden, head, targets = some_windows(3, 10)
    everywhere = torch.ones(3, 10, dtype=torch.bool)
    (together,) = slot_nats(hidden, head, targets, everywhere, [config], cap=30.0)
    for b, row in enumerate(together.view(3, 10)):
        (alone,) = slot_nats(hidden[b, None], head, targets[b, None], everywhere[b, None], [config], cap=30.0)
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=0)


def test_a_configuration_gives_the_same_bits_alone_and_in_a_group() -> None:
    hidden, head, targets = some_windows(5, 70)
    loss, scored = masks(5, 70, seed=3)
    group = [Fit(lr=lr, steps=steps) for lr in (0.004, 0.012) for steps in (3, 8)]
    group += [Fit(per="batch", bias=False), Fit(optimiser="lbfgs", lr=0.5, steps=3), Fit(loss_scale="window")]
    together = slot_nats(hidden, head, targets, loss, group, cap=30.0, scored_BT=scored)
    for config, nats in zip(group, together, strict=True):
        (alone,) = slot_nats(hidden, head, targets, loss, [config], cap=30.0, scored_BT=scored)
        assert torch.equal(nats, alone)


def test_a_warm_start_begins_where_it_is_told() -> None:
    hidden, head, targets = some_windows(3, 9)
    loss, scored = masks(3, 9, seed=2)
    start = 0.1 * torch.randn(3, D + V)
    config = Fit(steps=5)
    predictions = predict(hidden, Head.of(head, 30.0), targets, loss, scored, [config], [start.clone()])
    ((fitted, rows),) = list(predictions)
    found = -torch.cat(rows).gather(1, targets[scored][:, None]).squeeze(1)
    expected = autograd_slot(hidden, head, targets, loss, 30.0, config, start)[scored]
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=0)
    assert not torch.equal(fitted, start)


def test_every_distribution_sums_to_one() -> None:
    hidden, head, targets = some_windows(2, 9)
    loss, scored = masks(2, 9, seed=2)
    for _, rows in predict(hidden, Head.of(head, 30.0), targets, loss, scored, [Fit(), Fit(per="batch")]):
        assert [len(window) for window in rows] == scored.sum(1).tolist()
        torch.testing.assert_close(torch.cat(rows).logsumexp(1), torch.zeros(int(scored.sum())), atol=1e-5, rtol=0)


def test_clamped_parameters_stay_within() -> None:
    hidden, head, targets = some_windows(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    for config in (Fit(lr=0.5, steps=9, clamp=0.2), Fit(optimiser="lbfgs", lr=1.0, steps=9, clamp=0.2)):
        ((fitted, _),) = list(predict(hidden, Head.of(head, 30.0), targets, mask, mask, [config]))
        assert float(fitted.abs().max()) == pytest.approx(0.2)


@pytest.mark.parametrize("config", [Fit(lr=0.02), Fit(optimiser="lbfgs", lr=1.0), Fit(per="batch", lr=0.02)])
def test_fitting_lowers_the_loss_of_the_rows_it_is_fitted_on(config: Fit) -> None:
    hidden, head, targets = some_windows(3, 10)
    mask = torch.ones(3, 10, dtype=torch.bool)
    stepped = [replace(config, steps=steps) for steps in (0, 4, 16, 64)]
    losses = [float(nats.mean()) for nats in slot_nats(hidden, head, targets, mask, stepped, cap=30.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("cap", [5.0, 30.0, 100.0])
@pytest.mark.parametrize("weight_scale", [1.0, 100.0])
def test_saturated_logits_stay_finite(weight_scale: float, cap: float) -> None:
    hidden, head, targets = some_windows(2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    (nats,) = slot_nats(hidden * weight_scale, head * weight_scale, targets, mask, [Fit()], cap=cap)
    assert torch.isfinite(nats).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given | {"loss_BT": torch.zeros(2, 6, dtype=torch.bool)}, "no row carries loss"),
        (lambda given: given | {"scored_BT": torch.zeros(2, 6, dtype=torch.bool)}, "no row is scored"),
        (lambda given: given | {"hidden_BTD": given["hidden_BTD"] * torch.nan}, "hold NaN"),
        (lambda given: given | {"head_VD": torch.zeros(V, D + 1)}, r"head \(50, 17\)"),
        (lambda given: given | {"targets_BT": torch.zeros(2, 5, dtype=torch.long)}, r"targets \(2, 5\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(change: Any, message: str) -> None:
    hidden, head, targets = some_windows(2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    given = {"hidden_BTD": hidden, "head_VD": head, "targets_BT": targets, "loss_BT": mask, "scored_BT": mask}
    with pytest.raises(ValueError, match=message):
        slot_nats(**change(given), configs=[Fit()], cap=30.0)
