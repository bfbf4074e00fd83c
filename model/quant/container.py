"""The file that holds tensors: a header, a checksum and one compressed body. No pickle anywhere.

    "CDDE" | version u8 | codec u8 | crc32 u32 of the rest | body size before compression u64 | compressed body
    body = header size u32 | header JSON: [[name, dtype, shape], ...] | the tensors' bytes, each byte-shuffled

Byte shuffle (all first bytes of the items, then all second bytes ...) puts like bytes together, which is worth a few
percent on 16-bit tensors (as openai/parameter-golf #1394 does with stride 2).
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.quant.codecs import CODECS, Codec, compress, decompress

MAGIC = b"CDDE"
VERSION = 1
HEAD = struct.Struct("<4sBBIQ")

DTYPES = {"int8": torch.int8, "float16": torch.float16, "float32": torch.float32}


def write_container(path: Path, tensors: Mapping[str, Tensor], codec: Codec = "raw") -> int:
    """Write int8, float16 and float32 ``tensors``; the file's size in bytes. The same tensors give the same bytes."""
    data = pack_container(tensors, codec)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    os.replace(scratch, path)
    return len(data)


def read_container(path: Path) -> dict[str, Tensor]:
    """The tensors of a container, on the CPU.

    Raises:
        ValueError: the file is missing, damaged or not a container.
    """
    try:
        return unpack_container(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def pack_container(tensors: Mapping[str, Tensor], codec: Codec) -> bytes:
    """The bytes of a container."""
    index, parts = [], []
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ValueError(f"tensor {name} is {dtype}; a container holds {', '.join(DTYPES)}")
        array = tensor.detach().cpu().contiguous().numpy()
        index.append([name, dtype, list(array.shape)])
        parts.append(array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes())
    header = json.dumps(index, separators=(",", ":")).encode()
    body = b"".join((struct.pack("<I", len(header)), header, *parts))
    packed = compress(codec, body)
    rest = struct.pack("<Q", len(body)) + packed
    kind = bytes((VERSION, CODECS.index(codec)))
    return MAGIC + kind + struct.pack("<I", zlib.crc32(kind + rest)) + rest


def unpack_container(data: bytes) -> dict[str, Tensor]:
    """The inverse of :func:`pack_container`.

    Raises:
        ValueError: the data are truncated, changed or of another format or version.
    """
    if len(data) < HEAD.size or data[:4] != MAGIC:
        raise ValueError("not an artifact of this project (wrong magic)")
    _, version, codec, checksum, body_bytes = HEAD.unpack_from(data)
    if version != VERSION or codec >= len(CODECS):
        raise ValueError(f"artifact version {version}, codec {codec}: written by another release")
    if zlib.crc32(data[4:6] + data[10:]) != checksum:
        raise ValueError("damaged artifact: its checksum does not match")
    body = decompress(CODECS[codec], data[HEAD.size :])
    if len(body) != body_bytes:
        raise ValueError(f"damaged artifact: {len(body)} bytes unpacked, {body_bytes} promised")
    (header_bytes,) = struct.unpack_from("<I", body)
    tensors, at = {}, 4 + header_bytes
    for name, dtype, shape in json.loads(body[4:at]):
        count = math.prod(shape)
        item = DTYPES[dtype].itemsize
        planes = np.frombuffer(body, dtype=np.uint8, count=count * item, offset=at).reshape(item, count)
        values = np.frombuffer(planes.T.tobytes(), dtype=dtype).reshape(shape).copy()
        tensors[name] = torch.from_numpy(values)
        at += count * item
    return tensors
