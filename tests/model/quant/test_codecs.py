from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from model.quant.codecs import CODECS, Codec, compress, decompress
from model.quant.container import pack_container, unpack_container
from model.quant.pack import PackConfig, pack_weights
from model.quant.sdclip import SdClip

GENERAL: tuple[Codec, ...] = ("brotli", "lzma", "zstd")


@functools.cache
def like_trained() -> dict[str, torch.Tensor]:
    """What pack makes of matrices whose columns differ in size, a table, and small things."""
    generator = torch.Generator().manual_seed(4)
    weights = {"embedding": torch.randn(256, 96, generator=generator) * torch.rand(256, 1, generator=generator)}
    for layer in range(2):
        sizes = torch.exp(0.4 * torch.randn(288, generator=generator))
        weights[f"blocks.{layer}.mlp.down.weight"] = torch.randn(96, 288, generator=generator) * 0.05 * sizes
        weights[f"blocks.{layer}.mlp.up.weight"] = torch.randn(288, 96, generator=generator) * 0.1
        weights[f"blocks.{layer}.attention_scale"] = torch.randn(96, generator=generator)
    config = PackConfig(small_numel=1024, matrices=SdClip(), tables=SdClip(sigmas=20.0))
    return pack_weights(weights, config)


def test_a_place_in_the_table_never_changes() -> None:
    assert CODECS == ("raw", "brotli", "lzma", "zstd", "rans")


def test_rans_takes_less_than_any_general_codec_and_than_the_entropy_of_single_values() -> None:
    tensors = like_trained()
    sizes = {codec: len(pack_container(tensors, codec)) for codec in CODECS}
    assert sizes["rans"] < 0.98 * min(sizes[codec] for codec in GENERAL)
    bits = 0.0
    for tensor in tensors.values():
        if tensor.dtype == torch.int8:
            counts = np.unique(tensor.numpy(), return_counts=True)[1]
            bits += float((counts * -np.log2(counts / counts.sum())).sum())
    assert sizes["rans"] < bits / 8 + sum(2 * t.numel() for t in tensors.values() if t.dtype == torch.float16)


@pytest.mark.parametrize("codec", CODECS)
def test_large_tensors_come_back(codec: Codec) -> None:
    tensors = like_trained() | {"flat": torch.arange(-128, 128, dtype=torch.int8).repeat(9)}
    found = unpack_container(pack_container(tensors, codec))
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("rows", [40, 4000], ids=["small", "large"])
def test_what_repeats_itself_is_left_to_a_general_codec(rows: int) -> None:
    """Beside a matrix that is best coded by ANS."""
    line = torch.randint(-31, 32, (1, 97), generator=torch.Generator().manual_seed(7), dtype=torch.int8)
    tensors = {"repeated": line.repeat(rows, 1), "noise": like_trained()["blocks.0.mlp.down.weight"]}
    sizes = {codec: len(pack_container(tensors, codec)) for codec in ("brotli", "rans")}
    assert sizes["rans"] < sizes["brotli"]
    assert torch.equal(unpack_container(pack_container(tensors, "rans"))["repeated"], tensors["repeated"])


@pytest.mark.parametrize("codec", CODECS[1:])
def test_damage_beneath_the_checksum_is_refused(codec: Codec) -> None:
    """As another writer could make it: cut short, or begun wrongly."""
    tensors = like_trained()
    body_of = pack_container(tensors, "raw")[18:]
    packed = compress(codec, body_of)
    assert decompress(codec, packed) == body_of
    for wrong in (packed[: len(packed) // 2], packed[:-4], b"", b"\xff" * 30 + packed[30:]):
        with pytest.raises(ValueError, match=f"damaged artifact: {codec}"):
            decompress(codec, wrong)
