from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from model.net.bigram import BigramHash
from model.net.gpt import GPT
from model.net.smear import SmearGate
from model.net.value_embedding import ValueEmbedding
from model.optim.groups import OptimConfig, build_optimisers

NetFactory = Callable[..., GPT]
CONFIG = OptimConfig(matrix_lr=0.1, embed_lr=0.2, scalar_lr=0.3)


@pytest.mark.parametrize("unet_skips", [True, False])
@pytest.mark.parametrize("layers", [1, 3, 4])
def test_every_parameter_is_in_exactly_one_group(random_net: NetFactory, layers: int, unet_skips: bool) -> None:
    net = random_net(layers=layers, unet_skips=unet_skips)
    optimisers = build_optimisers(net, CONFIG)
    routed = [p for o in (optimisers.muon, optimisers.adam) for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, routed)) == sorted(id(p) for p in net.parameters())


def test_muon_has_the_block_matrices_and_adam_the_embedding_and_all_that_is_small(random_net: NetFactory) -> None:
    net = random_net(layers=3)
    optimisers = build_optimisers(net, CONFIG)
    name_of = {id(p): name for name, p in net.named_parameters()}
    muon = {name_of[id(p)] for p in optimisers.muon.param_groups[0]["params"]}
    embedding, small = ({name_of[id(p)] for p in group["params"]} for group in optimisers.adam.param_groups)
    linears = {f"{name}.weight" for name, module in net.named_modules() if type(module).__name__ == "Linear"}
    assert len(linears) == 3 * 6
    assert muon == linears
    assert embedding == {"embedding"}
    assert "skip_scale" in small
    assert {name.rpartition(".")[2] for name in small} == {
        "skip_scale",
        "mix",
        "attention_scale",
        "mlp_scale",
        "qk_gain",
    }


TABLES = {
    "bigram": BigramHash(rows=9, width=4),
    "value_embedding": ValueEmbedding(width=4),
    "smear": SmearGate(),
    "tie_embeddings": False,
}


@pytest.mark.parametrize("projections", ["muon", "adamw"])
def test_tables_go_with_the_embedding_their_projections_where_the_config_says_and_a_head_alone(
    random_net: NetFactory, projections: Literal["muon", "adamw"]
) -> None:
    net = random_net(layers=3, **TABLES)
    config = replace(CONFIG, projections=projections, adam_wd=0.3, embed_wd=0.7, head_lr=0.4)
    optimisers = build_optimisers(net, config)
    name_of = {id(p): name for name, p in net.named_parameters()}
    muon = {name_of[id(p)] for p in optimisers.muon.param_groups[0]["params"]}
    found = [
        ({name_of[id(p)] for p in group["params"]}, group["lr"], group["weight_decay"])
        for group in optimisers.adam.param_groups
    ]
    tables, scalars, head = (names for names, _, _ in found)
    assert [(lr, decay) for _, lr, decay in found] == [(0.2, 0.7), (0.3, 0.3), (0.4, 0.0)]
    projected = {"bigram.project.weight", "value_embedding.project.weight"}
    assert tables == {"embedding", "bigram.table", "value_embedding.table"}
    assert head == {"head.weight"}
    assert (muon if projections == "muon" else scalars) >= projected
    assert {"smear.gate", "bigram.scale", "value_embedding.scale"} <= scalars
    assert len(muon | tables | scalars | head) == len(list(net.parameters()))
    assert len(muon) + len(tables) + len(scalars) + len(head) == len(list(net.parameters()))


def test_every_group_has_the_rate_the_config_names_and_is_scaled_from_its_peak(random_net: NetFactory) -> None:
    optimisers = build_optimisers(random_net(), CONFIG)
    groups = [*optimisers.muon.param_groups, *optimisers.adam.param_groups]
    for scale in (0.5, 0.25, 1.0, 0.0):
        optimisers.set_rates(scale, momentum=0.95)
        assert [group["lr"] for group in groups] == pytest.approx([0.1 * scale, 0.2 * scale, 0.3 * scale])
        assert groups[0]["momentum"] == 0.95


def test_a_step_moves_every_parameter_and_drops_gradients(random_net: NetFactory) -> None:
    net = random_net(layers=3)
    optimisers = build_optimisers(net, CONFIG)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    ids = torch.randint(0, 40, (4, 12))
    net.loss(ids, ids).backward()
    optimisers.step()
    for name, p in net.named_parameters():
        assert not torch.equal(p, before[name]), name
        assert p.grad is None


def test_small_parameters_and_the_embedding_take_adamw_s_first_step_at_their_own_rate(random_net: NetFactory) -> None:
    net = random_net()
    config = replace(CONFIG, adam_wd=0.5, adam_eps=1e-12)
    optimisers = build_optimisers(net, config)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    signs = {name: p.grad.sign() for name, p in net.named_parameters() if p.grad is not None}
    optimisers.step()
    for name, rate in (
        ("embedding", 0.2),
        ("skip_scale", 0.3),
        ("blocks.0.mix", 0.3),
        ("blocks.1.attention.qk_gain", 0.3),
    ):
        expected = before[name] * (1 - rate * 0.5) - rate * signs[name]
        torch.testing.assert_close(net.get_parameter(name).detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"matrix_lr": 0.0},
        {"embed_lr": -1.0},
        {"scalar_lr": 0.0},
        {"adam_eps": 0.0},
        {"muon_momentum": 1.0},
        {"muon_momentum_start": -0.1},
        {"beta1": 1.0},
        {"beta2": 1.5},
        {"muon_wd": -0.1},
        {"adam_wd": -0.1},
        {"muon_momentum_warmup_steps": -1},
        {"head_lr": 0.0},
        {"embed_wd": -0.5},
        {"muon_steps": 0},
        {"projections": "sgd"},
    ],
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        OptimConfig(**change)
