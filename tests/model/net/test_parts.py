from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from model.audit.twin import build_twin, twin_config
from model.codec import decode, encode
from model.net.bigram import BigramHash, ngram_hash
from model.net.gpt import GPT, GPTConfig
from model.net.lanes import TwoLanes
from model.net.parallel import ParallelResidual
from model.net.recurrence import Recurrence
from model.net.skip_gates import SkipGates
from model.net.smear import Smear, SmearGate
from model.net.value_embedding import ValueEmbedding
from model.net.value_residual import ValueResidual
from model.net.xsa import ExcludeOwnValue, Xsa
from tests.model.net.reference import Script, hashed, script_logits

NetFactory = Callable[..., GPT]
LAYERS = 5
PLAIN = Script(layers=LAYERS, heads=4, kv_heads=2, rope_dims=4, ntk_from=8)


@dataclass(frozen=True)
class Case:
    """A technique, what a script with it has, and what a new network without it has in its place."""

    change: dict[str, Any]
    script: dict[str, Any]
    identity: bool = True
    """Whether a new network with it computes what one without it does."""
    at: list[int] = field(default_factory=lambda: [0, 3, 11])
    """First rows to try."""


CASES = {
    "bigram": Case({"bigram": BigramHash(rows=17, width=6)}, {"bigram_rows": 17}),
    "trigram": Case(
        {"bigram": BigramHash(rows=17, width=6, trigram=True, depth_scaled=False)}, {"bigram_rows": 17, "trigram": True}
    ),
    "smear": Case({"smear": SmearGate()}, {"smear": True}, identity=False),
    "smear with document starts": Case(
        {"smear": SmearGate(document_start=1)}, {"smear": True, "smear_bos": 1}, identity=False
    ),
    "value embedding": Case({"value_embedding": ValueEmbedding(width=6, last=2)}, {"value_layers": (3, 4)}),
    "value embedding everywhere": Case(
        {"value_embedding": ValueEmbedding(width=6, last=5, depth_scaled=False), "value_residual": ValueResidual()},
        {"value_layers": range(5), "value_residual": True},
    ),
    "value residual": Case({"value_residual": ValueResidual()}, {"value_residual": True}),
    "xsa": Case({"xsa": Xsa(last=5)}, {"xsa_layers": range(5)}),
    "xsa of the last two": Case({"xsa": Xsa(last=2)}, {"xsa_layers": (3, 4)}),
    "skip gates": Case({"skip_gates": SkipGates()}, {"gated_skips": True}),
    "parallel": Case({"parallel": ParallelResidual(first=3)}, {"parallel_from": 3}),
    "two lanes": Case({"parallel": TwoLanes(first=2)}, {"lanes_from": 2}),
    "two lanes in the last layer": Case({"parallel": TwoLanes(first=4)}, {"lanes_from": 4}),
    "recurrence": Case({"recurrence": Recurrence(first=2, last=3, loops=2)}, {"order": (0, 1, 2, 3, 2, 3, 2, 3, 4)}),
    "recurrence of the first and the last layer": Case(
        {"recurrence": Recurrence(first=0, last=4, loops=1), "value_residual": ValueResidual(gate=0.5)},
        {"order": (0, 1, 2, 3, 4, 0, 1, 2, 3, 4), "value_residual": True},
    ),
    "recurrence without skips": Case(
        {"recurrence": Recurrence(first=1, last=1, loops=1), "unet_skips": False},
        {"order": (0, 1, 1, 2, 3, 4), "skips": False},
    ),
    "untied head": Case({"tie_embeddings": False}, {}),
    "everything": Case(
        {
            "bigram": BigramHash(rows=23, width=5, trigram=True),
            "smear": SmearGate(document_start=1),
            "value_embedding": ValueEmbedding(width=7, last=3),
            "value_residual": ValueResidual(),
            "xsa": Xsa(last=4),
            "skip_gates": SkipGates(),
            "parallel": TwoLanes(first=3),
            "recurrence": Recurrence(first=1, last=2, loops=1),
            "tie_embeddings": False,
        },
        {
            "bigram_rows": 23,
            "trigram": True,
            "smear": True,
            "smear_bos": 1,
            "value_layers": (2, 3, 4),
            "value_residual": True,
            "xsa_layers": (1, 2, 3, 4),
            "gated_skips": True,
            "lanes_from": 3,
            "order": (0, 1, 2, 1, 2, 3, 4),
        },
        identity=False,
    ),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def some_ids(rows: int = 3, length: int = 12) -> torch.Tensor:
    """Token 1, which begins a document, stands here and there."""
    ids = torch.randint(2, 40, (rows, length), generator=torch.Generator().manual_seed(4))
    ids[0, 5] = ids[1, 0] = ids[2, 11] = 1
    return ids


def net_of(random_net: NetFactory, case: Case) -> GPT:
    return random_net(layers=LAYERS, rope_trained_len=8, **case.change)


@EACH
@torch.no_grad()
def test_a_technique_computes_what_the_field_s_formulas_say(random_net: NetFactory, case: Case) -> None:
    net, ids = net_of(random_net, case), some_ids()
    expected = script_logits(net.state_dict(), ids, replace(PLAIN, **case.script))
    torch.testing.assert_close(net.logits(net.hidden(ids)), expected, atol=1e-4, rtol=0)
    without = replace(PLAIN, **{"order": (), **{name: getattr(PLAIN, name) for name in case.script}})
    if case.script:
        try:
            other = script_logits(net.state_dict(), ids, without)
        except (IndexError, KeyError):
            return  # without it the weights have another shape
        assert (expected - other).abs().max() > 1e-2, "the reference must tell them apart"


@EACH
@torch.no_grad()
def test_rows_before_the_first_row_are_only_looked_back_at(random_net: NetFactory, case: Case) -> None:
    net, ids = net_of(random_net, case), some_ids()
    whole = net.hidden(ids)
    for first in case.at:
        torch.testing.assert_close(net.hidden(ids, first), whole[:, first:], atol=1e-5, rtol=1e-5)


@EACH
@torch.no_grad()
def test_a_technique_is_causal(random_net: NetFactory, case: Case) -> None:
    net, ids = net_of(random_net, case), some_ids()
    before = net.hidden(ids)
    for t in (0, 4, 5, 11):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 3) % 40
        after = net.hidden(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t], atol=1e-3)


@EACH
@torch.no_grad()
def test_under_bf16_autocast_hidden_states_are_bf16_and_close_to_the_exact_ones(
    random_net: NetFactory, case: Case
) -> None:
    net, ids = net_of(random_net, case), some_ids()
    expected = net.logits(net.hidden(ids))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = net.hidden(ids)
        logits = net.logits(hidden)
    assert hidden.dtype == torch.bfloat16
    assert (logits - expected).abs().mean() < 0.05 * expected.std()


@EACH
def test_a_new_network_starts_as_one_without_the_technique_where_it_can(tiny_config: GPTConfig, case: Case) -> None:
    ids = some_ids()
    torch.manual_seed(3)
    new = replace(tiny_config, layers=LAYERS, **case.change).build()
    torch.manual_seed(3)
    keep = {name: value for name, value in case.change.items() if name == "unet_skips"}
    plain = replace(tiny_config, layers=LAYERS, **keep).build()
    same = torch.allclose(new.hidden(ids), plain.hidden(ids), atol=1e-5)
    assert same == case.identity
    if not new.head_weight.any():
        assert not new.logits(new.hidden(ids)).any(), "a head of its own starts at zero: all tokens alike"


@EACH
def test_every_weight_of_a_technique_learns(random_net: NetFactory, case: Case) -> None:
    net, ids = net_of(random_net, case), some_ids()
    net.loss(ids, ids.roll(-1, 1)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@EACH
def test_off_means_absent_and_on_brings_only_its_own_weights(tiny_config: GPTConfig, case: Case) -> None:
    plain, on = tiny_config, replace(tiny_config, layers=LAYERS, **case.change)
    names = {name for name, _ in on.build().named_parameters()}
    known = {name for name, _ in replace(plain, layers=LAYERS).build().named_parameters()}
    words = ("bigram.", "smear.", "value_embedding.", "value_mixes.", "skip_gates.", "head.", ".keep", ".post")
    assert not any(word in name for name in known for word in words)
    assert all(any(word in name for word in words) for name in names - known)
    assert on.parameters == sum(weight.numel() for weight in on.build().parameters())


@EACH
def test_training_s_loss_compiles_as_one_graph(random_net: NetFactory, case: Case) -> None:
    net, ids = net_of(random_net, case), some_ids()
    torch._dynamo.reset()
    compiled = torch.compile(net.loss, dynamic=False, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, ids), net.loss(ids, ids))


@EACH
def test_a_config_survives_the_job_file_and_a_twin_has_every_technique(tiny_config: GPTConfig, case: Case) -> None:
    config = replace(tiny_config, layers=LAYERS, dim=64, heads=4, kv_heads=2, rope_dims=16, **case.change)
    assert decode(encode(config)) == config
    twin: Any = twin_config(config)
    assert twin.layers == 3
    assert twin.parts.keys() == config.parts.keys()
    assert torch.isfinite(build_twin(config).hidden(some_ids())).all()


def test_the_hash_of_tokens_is_that_of_32_bit_integers() -> None:
    ids = torch.tensor([[0, 1, 65535, 65534, 40000, 3, 3, 3]])
    for rows in (2, 17, 1024):
        for order in (2, 3):
            found = ngram_hash(ids, order, rows)
            assert torch.equal(found, hashed(ids, rows, order))
            assert (found[:, : order - 1] == rows - 1).all()


def test_a_new_hash_embedding_is_zero_yet_learns_at_once(tiny_config: GPTConfig) -> None:
    net = replace(tiny_config, bigram=BigramHash(rows=17, width=6)).build()
    assert net.bigram(some_ids(), torch.float32).abs().max() == 0
    table, project = net.bigram.table, net.bigram.project.weight
    torch.testing.assert_close(project.T @ project * 2 * 2, torch.eye(6), atol=1e-5, rtol=0)
    ids = some_ids()
    (0 * net.skip_scale.sum() + net.embed(ids)[0].square() @ torch.randn(16)).sum().backward()
    assert table.grad.abs().max() > 0


def test_a_document_begins_as_a_window_does() -> None:
    smear = Smear(4, document_start=1)
    torch.nn.init.normal_(smear.gate)
    x, ids = torch.randn(1, 6, 4), torch.tensor([[5, 6, 1, 7, 8, 9]])
    whole = smear(x, ids)
    torch.testing.assert_close(whole[:, 2:], smear(x[:, 2:], ids[:, 2:]))
    torch.testing.assert_close(whole[:, :2], smear(x[:, :2], ids[:, :2]))


def test_what_attention_found_keeps_nothing_along_the_own_value() -> None:
    y, v = torch.randn(2, 5, 6, 8), torch.randn(2, 5, 3, 8)
    rest = ExcludeOwnValue()(y, v)
    for h in range(6):
        assert (rest[:, :, h] * v[:, :, h // 2]).sum(-1).abs().max() < 1e-5
    torch.testing.assert_close(ExcludeOwnValue()(rest, v), rest, atol=1e-5, rtol=1e-5)


def test_depth_begins_at_its_point_of_training_and_scoring_always_has_it(random_net: NetFactory) -> None:
    net = random_net(layers=LAYERS, recurrence=Recurrence(first=2, last=3, loops=2, start=0.35))
    ids = some_ids()
    deep, order = net.hidden(ids), (0, 1, 2, 3, 2, 3, 2, 3, 4)
    weights, script = net.state_dict(), replace(PLAIN, ntk_from=64)
    compiled = torch.compile(net.hidden, dynamic=False, fullgraph=True, backend="eager")
    for progress, expected in ((0.0, ()), (0.34, ()), (0.35, order), (1.0, order)):
        net.at_progress(progress)
        logits = script_logits(weights, ids, replace(script, order=expected))
        torch.testing.assert_close(net.logits(net.hidden(ids)), logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(net.logits(compiled(ids)), logits, atol=1e-4, rtol=0)
    assert torch.equal(net.hidden(ids), deep)
    assert net.depths == (0.0, 0.35)
    assert random_net().depths == (0.0,)


def test_the_field_s_loops_have_the_orders_that_its_logs_show() -> None:
    assert Recurrence().order(11) == (0, 1, 2, 3, 4, 5, 4, 5, 4, 5, 6, 7, 8, 9, 10)
    seventeen = Recurrence(first=3, last=5, start=0.35).order(11)
    assert seventeen[:8] == (0, 1, 2, 3, 4, 5, 3, 4)
    assert seventeen[8:] == (5, 3, 4, 5, 6, 7, 8, 9, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bigram": BigramHash(rows=1)}, "2 rows.*got 1 and 128"),
        ({"smear": SmearGate(document_start=40)}, "vocab_size=40, got 40"),
        ({"value_embedding": ValueEmbedding(last=6)}, "1 to net.layers=5, got 6"),
        ({"value_embedding": ValueEmbedding(width=0, last=1)}, "width must be 1 or more, got 0"),
        ({"value_residual": ValueResidual(), "layers": 1}, "2 layers or more, got net.layers=1"),
        ({"xsa": Xsa()}, "net.xsa.last must be 1 to net.layers=5, got 11"),
        ({"xsa": Xsa(last=0)}, "got 0"),
        ({"skip_gates": SkipGates(), "unet_skips": False}, "net.skip_gates is set, but there is no skip"),
        ({"parallel": ParallelResidual()}, "net.layers=5 from 0, got 7"),
        ({"parallel": TwoLanes(first=5)}, "net.layers=5 from 0, got 5"),
        ({"parallel": TwoLanes(first=1)}, "first=1.*save a skip"),
        ({"parallel": TwoLanes(first=3), "recurrence": Recurrence(first=1, last=3, loops=1)}, "first=3.*save a skip"),
        (
            {"parallel": TwoLanes(first=4), "unet_skips": False, "recurrence": Recurrence(first=3, last=4)},
            "first=4.*one lane again",
        ),
        ({"recurrence": Recurrence(first=4, last=5)}, "got 4 and 5"),
        ({"recurrence": Recurrence(first=3, last=2)}, "got 3 and 2"),
        ({"recurrence": Recurrence(first=1, last=2, loops=0)}, "got 0 and 0.5"),
        ({"recurrence": Recurrence(first=1, last=2, start=1.5)}, "got 2 and 1.5"),
    ],
)
def test_a_technique_that_doesn_t_fit_the_network_is_refused_with_the_values(
    tiny_config: GPTConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny_config, **{"layers": LAYERS, **change})
