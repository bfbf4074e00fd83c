from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from model.net.gpt import GPT, GPTConfig
from model.net.mlp import Mlp

NetFactory = Callable[..., GPT]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def some_ids(rows: int = 2, length: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def normed(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()


def unet_reference(net: GPT, ids: torch.Tensor) -> torch.Tensor:
    """The forward over layers L: the first L // 2 push their output, each later one takes the newest that is left."""
    layers = len(net.blocks)
    cos, sin = net.rope(ids.shape[1], ids.device)
    x0 = normed(net.embedding[ids])
    x, pushed = x0, {}
    for layer in range(layers // 2):
        x = pushed[layer] = net.blocks[layer](x, x0, cos, sin)
    for layer in range(layers // 2, layers):
        partner = 2 * (layers // 2) - 1 - layer
        if partner >= 0:
            x = x + net.skip_scale[layer - layers // 2] * pushed[partner]
        x = net.blocks[layer](x, x0, cos, sin)
    return normed(x)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
@torch.no_grad()
def test_unet_skips_join_layers_from_the_middle_outwards(random_net: NetFactory, layers: int) -> None:
    net = random_net(layers=layers)
    ids = some_ids()
    torch.testing.assert_close(net.hidden(ids), unet_reference(net, ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_skips_the_blocks_follow_each_other_and_there_is_no_skip_weight(random_net: NetFactory) -> None:
    net = random_net(layers=4, unet_skips=False)
    ids = some_ids()
    cos, sin = net.rope(8, ids.device)
    x = x0 = normed(net.embedding[ids])
    for block in net.blocks:
        x = block(x, x0, cos, sin)
    torch.testing.assert_close(net.hidden(ids), normed(x), atol=1e-4, rtol=1e-4)
    assert not any("skip" in name for name in net.state_dict())


@torch.no_grad()
def test_layer_i_norms_its_input_by_one_over_root_i_plus_one_if_asked(tiny_config: GPTConfig) -> None:
    scaled, plain = (replace(tiny_config, layers=4, ln_scale=on).build() for on in (True, False))
    assert [block.norm_scale for block in scaled.blocks] == pytest.approx([1, 2**-0.5, 3**-0.5, 0.5])
    assert [block.norm_scale for block in plain.blocks] == [1.0] * 4


@torch.no_grad()
def test_hidden_states_are_causal(random_net: NetFactory) -> None:
    net = random_net(layers=3)
    ids = some_ids(1, 10)
    before = net.hidden(ids)
    for t in range(10):
        changed = ids.clone()
        changed[0, t] = (changed[0, t] + 1) % 40
        after = net.hidden(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t], atol=1e-3)


@torch.no_grad()
def test_logits_are_the_tied_embedding_s_products_capped_by_tanh(random_net: NetFactory) -> None:
    net = random_net(logit_cap=5.0)
    hidden = net.hidden(some_ids()) * 100
    logits = net.logits(hidden)
    torch.testing.assert_close(logits, 5 * torch.tanh(hidden @ net.embedding.T / 5), atol=1e-5, rtol=1e-5)
    assert logits.abs().max() <= 5
    assert logits.abs().max() > 4.99
    assert logits.shape == (2, 8, 40)


@torch.no_grad()
def test_loss_is_the_mean_negative_log_probability(random_net: NetFactory) -> None:
    net = random_net()
    ids, targets = some_ids(seed=1), some_ids(seed=2)
    probabilities = net.logits(net.hidden(ids)).double().softmax(-1)
    nats = [-probabilities[b, t, targets[b, t]].log().item() for b in range(2) for t in range(8)]
    assert net.loss(ids, targets).item() == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def test_gradients_are_the_slope_of_the_loss(random_net: NetFactory) -> None:
    net = random_net(layers=5).double()
    ids, targets = some_ids(seed=1), some_ids(seed=2)
    net.loss(ids, targets).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-3 * direction
                sides.append(net.loss(ids, targets).item())
                parameter -= sign * 1e-3 * direction
        slope = float((parameter.grad * direction).sum())
        assert (sides[0] - sides[1]) / 2e-3 == pytest.approx(slope, abs=1e-3), name


def test_a_new_network_passes_the_normed_embedding_through_scaled_by_the_skips(tiny_config: GPTConfig) -> None:
    ids = some_ids()
    for unet in (True, False):
        net = replace(tiny_config, layers=4, unet_skips=unet).build()
        torch.testing.assert_close(net.hidden(ids), normed(net.embedding[ids]), atol=1e-5, rtol=1e-5)


def test_the_seed_decides_the_weights(tiny_config: GPTConfig) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return tiny_config.build().state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding"], other["embedding"])


def test_the_embedding_starts_with_the_configured_spread(tiny_config: GPTConfig) -> None:
    net = replace(tiny_config, vocab_size=2000, embed_std=0.005).build()
    assert net.embedding.std().item() == pytest.approx(0.005, rel=0.03)
    assert abs(net.embedding.mean().item()) < 1e-4


def test_the_field_s_full_size_has_the_parameters_counted_by_hand() -> None:
    matrices = 11 * (512 * 512 * 2 + 512 * 256 * 2 + 512 * 1536 * 2)
    small = 11 * (2 * 512 + 512 + 512 + 8) + 5 * 512
    assert GPTConfig().parameters == 1024 * 512 + matrices + small


def test_a_config_counts_the_parameters_that_its_network_has(tiny_config: GPTConfig) -> None:
    for config in (tiny_config, replace(tiny_config, layers=3, unet_skips=False, mlp_mult=4)):
        assert config.parameters == sum(weight.numel() for weight in config.build().parameters())


def test_training_s_loss_compiles_as_one_graph(random_net: NetFactory) -> None:
    net = random_net()
    ids = some_ids()
    compiled = torch.compile(net.loss, dynamic=False, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, ids), net.loss(ids, ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "sizes must be 1 or more"),
        ({"vocab_size": -1}, "sizes must be 1 or more"),
        ({"heads": 3}, "heads=3"),
        ({"kv_heads": 3}, "kv_heads=3"),
        ({"rope_dims": 2}, "rope_dims must be even, from 4 to the head's 4, got 2"),
        ({"rope_dims": 6}, "got 6"),
        ({"rope_dims": 5}, "got 5"),
        ({"logit_cap": 0.0}, "logit_cap"),
        ({"qk_gain": -1.0}, "qk_gain"),
        ({"embed_std": 0.0}, "embed_std"),
    ],
)
def test_a_shape_that_can_t_be_built_is_refused_with_its_value(
    tiny_config: GPTConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny_config, **change)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])])
@torch.no_grad()
def test_under_bf16_autocast_logits_are_float32_and_close_to_the_exact_ones(
    random_net: NetFactory, device: str
) -> None:
    net = random_net(layers=3, dim=64, rope_dims=8)
    ids = some_ids(4, 48)
    expected = net.logits(net.hidden(ids))
    net.to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        hidden = net.hidden(ids.to(device))
        logits = net.logits(hidden)
    assert hidden.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert (logits.cpu() - expected).abs().mean() < 0.03 * expected.std()


@pytest.mark.gpu
@needs_cuda
@torch.no_grad()
def test_float32_logits_on_cuda_equal_those_on_the_cpu(random_net: NetFactory) -> None:
    net = random_net(layers=3)
    ids = some_ids(4, 48)
    expected = net.logits(net.hidden(ids))
    net.to("cuda")
    torch.testing.assert_close(net.logits(net.hidden(ids.cuda())).cpu(), expected, atol=2e-3, rtol=2e-3)


def test_matrices_start_as_torch_s_own_linear_layers_where_the_config_says_so() -> None:
    """Uniform within 1 / sqrt(inputs), as the public repository's default leaves them; what starts at zero stays."""
    torch.manual_seed(1)
    net = GPT(GPTConfig(vocab_size=40, layers=2, dim=64, heads=2, kv_heads=1, matrix_init="uniform"))
    for name, weight in net.blocks.state_dict().items():
        if name.endswith(("out.weight", "down.weight")):
            assert not weight.any(), name
        elif name.endswith(".weight"):
            reference = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False).weight.detach()
            assert weight.abs().max() <= weight.shape[1] ** -0.5, name
            assert weight.abs().max() == pytest.approx(float(reference.abs().max()), rel=0.02), name
            assert weight.std() == pytest.approx(float(reference.std()), rel=0.05), name
    orthogonal = GPT(GPTConfig(vocab_size=40, layers=2, dim=64, heads=2, kv_heads=1)).blocks[0].attention.query.weight
    torch.testing.assert_close(orthogonal @ orthogonal.T, torch.eye(64), atol=1e-5, rtol=0)


def test_an_mlp_of_slope_zero_is_relu_squared() -> None:
    torch.manual_seed(1)
    mlp = Mlp(8, 2, slope=0.0)
    torch.nn.init.normal_(mlp.down.weight)
    x = torch.randn(5, 8)
    torch.testing.assert_close(mlp(x), torch.relu(x @ mlp.up.weight.T).square() @ mlp.down.weight.T)


@pytest.mark.parametrize("change", [{"mlp_slope": -0.1}, {"mlp_slope": 1.5}, {"matrix_init": "normal"}])
def test_a_slope_or_a_start_that_there_is_not_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"net.{next(iter(change))}.*{next(iter(change.values()))}"):
        GPTConfig(**change)
