"""How a container's body is compressed: one table, in which a codec's place is the byte in the file.

``rans`` codes the int8 matrices by :mod:`model.quant.rans`, and the rest by the general codec that makes least of it:

    which general codec u8 | bytes of the rest, compressed, u32 | the rest, compressed | ANS words
    the rest = header size u32 | header | u8 for each large int8 matrix: is it in the ANS words? | other tensors' bytes
"""

from __future__ import annotations

import json
import lzma
import math
import struct
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from model.quant.rans import decode_matrices, encode_matrices

Codec = Literal["raw", "brotli", "lzma", "zstd", "rans"]
CODECS: tuple[Codec, ...] = ("raw", "brotli", "lzma", "zstd", "rans")
"""Only ever append."""
GENERAL = CODECS[:4]
ITEM_BYTES = {"int8": 1, "float16": 2, "float32": 4}
LARGE_NUMEL = 1024
"""Smaller matrices are left to the general codec."""
SAMPLE_BYTES = 65_536
"""Of a matrix, to see whether it repeats itself, which only a general codec makes use of."""
WHOLE_BYTES = 32_768
"""A body up to here is tried without ANS, too."""


def compress(codec: Codec, body: bytes) -> bytes:
    """``body`` by ``codec``; the same bytes for the same body."""
    return _PAIRS[codec][0](body)


def decompress(codec: Codec, packed: bytes) -> bytes:
    """The inverse of :func:`compress`.

    Raises:
        ValueError: ``packed`` is damaged.
    """
    try:
        return _PAIRS[codec][1](packed)
    except ImportError:
        raise
    except Exception as error:  # each library has its own kind
        raise ValueError(f"damaged artifact: {codec} can't unpack it ({error})") from error


def _brotli(body: bytes) -> bytes:
    import brotli  # a machine that only trains may have none of these

    packed: bytes = brotli.compress(body, quality=11, lgwin=24)
    return packed


def _unbrotli(packed: bytes) -> bytes:
    import brotli

    body: bytes = brotli.decompress(packed)
    return body


def _lzma(body: bytes) -> bytes:
    # The window of that preset, 64 MiB, takes a second to set up; a body never needs more than itself.
    window = min(2**26, max(2**12, len(body)))
    best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}
    return lzma.compress(body, filters=[best])


def _zstd(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=22).compress(body)


def _unzstd(packed: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompress(packed)


def _rans(body: bytes) -> bytes:
    (header_bytes,) = struct.unpack_from("<I", body)
    at, parts = 4 + header_bytes, []
    for size, shape in _sizes(body[4:at]):
        parts.append((body[at : at + size], shape))
        at += size
    noisy = [_is_noise(data) for data, shape in parts if shape]
    tried = [noisy, [False] * len(noisy)] if len(body) <= WHOLE_BYTES and any(noisy) else [noisy]
    return min((_joined(body[: 4 + header_bytes], parts, coded) for coded in tried), key=len)


def _joined(header: bytes, parts: list[tuple[bytes, list[int]]], coded: list[bool]) -> bytes:
    flags, rest, matrices = iter(coded), [header, bytes(coded)], []
    for data, shape in parts:
        if bool(shape) and next(flags):
            matrices.append(np.frombuffer(data, dtype=np.int8).astype(np.int64).reshape(shape))
        else:
            rest.append(data)
    packed = [compress(codec, b"".join(rest)) for codec in GENERAL]
    least = min(range(len(packed)), key=lambda kind: len(packed[kind]))
    return struct.pack("<BI", least, len(packed[least])) + packed[least] + encode_matrices(matrices)


def _unrans(packed: bytes) -> bytes:
    kind, rest_bytes = struct.unpack_from("<BI", packed)
    rest = decompress(GENERAL[kind], packed[5 : 5 + rest_bytes])
    (header_bytes,) = struct.unpack_from("<I", rest)
    sizes = _sizes(rest[4 : 4 + header_bytes])
    at = 4 + header_bytes + sum(bool(shape) for _, shape in sizes)
    flags = list(rest[4 + header_bytes : at])
    coded = [flags.pop(0) == 1 if shape else False for _, shape in sizes]
    shapes = [shape for (_, shape), by_ans in zip(sizes, coded, strict=True) if by_ans]
    matrices = iter(decode_matrices(packed[5 + rest_bytes :], shapes))
    body = [rest[: 4 + header_bytes]]
    for (size, _), by_ans in zip(sizes, coded, strict=True):
        body.append(next(matrices).astype(np.int8).tobytes() if by_ans else rest[at : at + size])
        at += 0 if by_ans else size
    if at != len(rest):
        raise ValueError(f"{len(rest)} bytes beside the matrices, {at} promised")
    return b"".join(body)


def _sizes(header: bytes) -> list[tuple[int, list[int]]]:
    """The tensors' bytes, and the shapes of those that are large int8 matrices; of others it is empty."""
    sizes = []
    for _, dtype, shape in json.loads(header):
        numel = math.prod(shape)
        large = dtype == "int8" and len(shape) == 2 and numel >= LARGE_NUMEL
        sizes.append((numel * ITEM_BYTES[dtype], shape if large else []))
    return sizes


def _is_noise(matrix: bytes) -> bool:
    """Whether single values say all there is: then the cheapest general codec gains nothing over their entropy."""
    sample = matrix[:SAMPLE_BYTES]
    counts = np.bincount(np.frombuffer(sample, dtype=np.uint8), minlength=256)
    seen = counts[counts > 0] / len(sample)
    entropy_bytes = -float((seen * np.log2(seen)).sum()) * len(sample) / 8
    return len(zlib.compress(sample, 6)) > 0.9 * entropy_bytes


_PAIRS: dict[Codec, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "raw": (bytes, bytes),
    "brotli": (_brotli, _unbrotli),
    "lzma": (_lzma, lzma.decompress),
    "zstd": (_zstd, _unzstd),
    "rans": (_rans, _unrans),
}
