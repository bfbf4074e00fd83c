from __future__ import annotations

import functools
import json
import lzma
import struct
import zlib
from pathlib import Path

import brotli
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.quant.codecs import CODECS, Codec
from model.quant.container import pack_container, read_container, unpack_container, write_container

codecs = st.sampled_from(CODECS)
arrays = st.sampled_from([np.int8, np.float16, np.float32]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
tensor_maps = st.dictionaries(st.text(max_size=12), arrays.map(torch.from_numpy), max_size=4)
SAMPLE = {
    "embedding": torch.arange(-6, 6, dtype=torch.int8).view(3, 4),
    "embedding#scale": torch.tensor([0.5, 0.25, 2.0], dtype=torch.float16),
    "blocks.0.mix": torch.linspace(-1, 1, 6).view(2, 3),
}


@functools.cache
def sample_bytes(codec: Codec) -> bytes:
    return pack_container(SAMPLE, codec)


def unpacked(codec: Codec, packed: bytes) -> bytes:
    """Without the project's own table; of ``rans`` a body without large matrices."""
    if codec == "rans":
        kind, rest_bytes = struct.unpack_from("<BI", packed)
        assert len(packed) == 5 + rest_bytes
        return unpacked(CODECS[kind], packed[5:])
    if codec == "zstd":
        return zstandard.ZstdDecompressor().decompress(packed)
    return {"raw": bytes, "brotli": brotli.decompress, "lzma": lzma.decompress}[codec](packed)


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Equal names in order, dtypes, shapes and bytes; NaN is equal to itself."""
    return list(first) == list(second) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()
        for a, b in zip(first.values(), second.values(), strict=True)
    )


@given(tensors=tensor_maps, codec=codecs)
@example(tensors={}, codec="raw")
@example(tensors={"empty": torch.zeros(0, 3)}, codec="brotli")
@example(tensors={"scalar": torch.tensor(1.5)}, codec="lzma")
def test_any_tensors_come_back_bit_for_bit(tensors: dict[str, torch.Tensor], codec: Codec) -> None:
    assert same_bits(unpack_container(pack_container(tensors, codec)), tensors)


@pytest.mark.parametrize("codec", CODECS)
def test_the_layout_is_the_documented_one(codec: Codec) -> None:
    data = sample_bytes(codec)
    assert data[:5] == b"CDDE\x01"
    assert CODECS[data[5]] == codec
    (body_bytes,) = struct.unpack("<Q", data[10:18])
    body = unpacked(codec, data[18:])
    assert len(body) == body_bytes
    (header_bytes,) = struct.unpack("<I", body[:4])
    assert json.loads(body[4 : 4 + header_bytes]) == [
        ["embedding", "int8", [3, 4]],
        ["embedding#scale", "float16", [3]],
        ["blocks.0.mix", "float32", [2, 3]],
    ]
    shuffled = b""
    for tensor in SAMPLE.values():
        items = [item.tobytes() for item in tensor.numpy().ravel()]
        shuffled += b"".join(bytes(item[i] for item in items) for i in range(len(items[0])))
    assert body[4 + header_bytes :] == shuffled


@pytest.mark.parametrize("codec", CODECS)
def test_equal_tensors_give_equal_bytes_whatever_their_strides(codec: Codec) -> None:
    strided = {name: t.T.contiguous().T if t.ndim == 2 else t.repeat_interleave(2)[::2] for name, t in SAMPLE.items()}
    assert pack_container(strided, codec) == sample_bytes(codec)


def test_parameters_are_packed_without_their_graph() -> None:
    weight = torch.nn.Parameter(torch.randn(2, 3))
    restored = unpack_container(pack_container({"w": weight}, "raw"))["w"]
    assert torch.equal(restored, weight)
    assert not restored.requires_grad


@settings(max_examples=150)
@given(data=st.data(), codec=codecs)
def test_any_flipped_byte_is_refused(data: st.DataObject, codec: Codec) -> None:
    whole = sample_bytes(codec)
    at = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(whole)
    damaged[at] ^= flip
    with pytest.raises(ValueError, match="artifact"):
        unpack_container(bytes(damaged))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("at", range(18))
def test_a_flipped_bit_of_the_head_is_refused(codec: str, at: int) -> None:
    for bit in range(8):
        damaged = bytearray(sample_bytes(codec))
        damaged[at] ^= 1 << bit
        with pytest.raises(ValueError, match="artifact"):
            unpack_container(bytes(damaged))


@pytest.mark.parametrize("codec", CODECS)
def test_a_container_cut_short_or_grown_anywhere_is_refused(codec: Codec) -> None:
    whole = sample_bytes(codec)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="artifact"):
            unpack_container(whole[:length])
    with pytest.raises(ValueError, match="artifact"):
        unpack_container(whole + b"\0")


@pytest.mark.parametrize("codec", CODECS)
def test_a_wrong_promise_of_the_body_s_size_is_refused(codec: Codec) -> None:
    """With a checksum that fits, as another writer could make it."""
    whole = sample_bytes(codec)
    (promised,) = struct.unpack("<Q", whole[10:18])
    rest = struct.pack("<Q", promised + 1) + whole[18:]
    with pytest.raises(ValueError, match="artifact"):
        unpack_container(whole[:6] + struct.pack("<I", zlib.crc32(rest)) + rest)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=dtype) for dtype in (torch.bfloat16, torch.int64, torch.float64)]
)
def test_a_dtype_that_a_container_does_not_hold_is_refused_with_the_tensor_s_name(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="tensor w is"):
        pack_container({"w": tensor}, "raw")


def test_a_file_is_written_whole_and_its_size_returned(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    size = write_container(path, SAMPLE, "lzma")
    assert path.stat().st_size == size
    assert path.read_bytes() == pack_container(SAMPLE, "lzma")
    assert list(tmp_path.iterdir()) == [path]
    assert same_bits(read_container(path), SAMPLE)


@pytest.mark.parametrize("content", [None, b"", b"CDDE", b"not a container, but long enough"])
def test_a_file_that_is_no_container_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.bin: "):
        read_container(path)
