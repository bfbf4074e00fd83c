from __future__ import annotations

import pytest
import torch

from model.net.attention import Attention
from model.net.block import Block
from model.net.linear import Linear
from model.net.mlp import Mlp
from model.net.norm import rms_norm
from model.net.rope import Rope

CPU = torch.device("cpu")


def new_block(norm_scale: float = 1.0) -> Block:
    torch.manual_seed(3)
    return Block(Attention(16, 4, 2, qk_gain=4.0), Mlp(16, 3), 16, norm_scale)


def random_block(norm_scale: float) -> Block:
    block = new_block(norm_scale)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return block


def test_a_new_block_is_the_identity() -> None:
    x, x0 = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    assert torch.equal(new_block()(x, x0, *Rope(4, 1e4, 1024)(5, CPU)), x)


@pytest.mark.parametrize("norm_scale", [1.0, 0.5])
@torch.no_grad()
def test_block_mixes_in_the_input_and_scales_norm_and_branches(norm_scale: float) -> None:
    block = random_block(norm_scale)
    x, x0 = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    cos, sin = Rope(4, 1e4, 1024)(5, CPU)

    def normed(rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.square().mean(-1, keepdim=True).sqrt()

    mixed = block.mix[0] * x + block.mix[1] * x0
    y = mixed + block.attention_scale * block.attention(normed(mixed) * norm_scale, cos, sin)
    expected = y + block.mlp_scale * block.mlp(normed(y) * norm_scale)
    torch.testing.assert_close(block(x, x0, cos, sin), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_mlp_squares_a_leaky_relu_and_so_drops_the_sign() -> None:
    mlp = Mlp(4, 3)
    mlp.down.weight.normal_()
    x = torch.randn(2, 3, 4)
    hidden = x @ mlp.up.weight.T
    activated = torch.where(hidden > 0, hidden**2, 0.25 * hidden**2)
    torch.testing.assert_close(mlp(x), activated @ mlp.down.weight.T, atol=1e-6, rtol=1e-5)
    assert mlp.up.weight.shape == (12, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_makes_the_mean_square_one_down_to_the_embedding_s_first_scale(dtype: torch.dtype) -> None:
    x = (torch.randn(50, 4, 64) * torch.tensor([0.005, 0.1, 1.0, 1e4])[:, None]).to(dtype)
    mean_square = x.double().square().mean(-1, keepdim=True)
    y = rms_norm(x)
    assert y.dtype == dtype
    torch.testing.assert_close(
        y.double(), x.double() / (mean_square + 2**-23).sqrt(), atol=1e-5, rtol=torch.finfo(dtype).eps * 4
    )
    torch.testing.assert_close(y.double().square().mean(-1), torch.ones(50, 4, dtype=torch.float64), atol=0.015, rtol=0)


def test_a_new_matrix_is_orthogonal_or_zero_and_keeps_float32_under_bf16_input() -> None:
    wide, tall = Linear(12, 4), Linear(4, 12)
    torch.testing.assert_close(wide.weight @ wide.weight.T, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(tall.weight.T @ tall.weight, torch.eye(4), atol=1e-5, rtol=0)
    assert Linear(4, 12, zero_init=True).weight.abs().max() == 0
    assert wide.weight.dtype == torch.float32
    assert wide(torch.ones(2, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16
