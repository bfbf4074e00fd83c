"""From averaged weights to ``artifact.bin``, the file whose bytes count, and back to weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from model.gang import Gang
from model.job import ARTIFACT, CHECKPOINT, EXPOSURE, Job
from model.quant.codecs import CODECS, Codec
from model.quant.container import read_container, write_container
from model.quant.rtn import round_rows, unround_rows

SCALE = "#scale"
"""Suffix of the tensor that holds a matrix's row scales."""


@runtime_checkable
class Rounding(Protocol):
    """Another way to choose a row's steps than from its largest weight."""

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,) of a matrix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """Bits and codec. Matrices are rounded by row; everything else is small and stays float16."""

    matrix_bits: int = 6
    embed_bits: int = 8
    """Of the embedding and the other tables, and of a head that isn't the embedding."""
    matrices: Rounding | None = None
    tables: Rounding | None = None
    """None: a row's largest weight sets its steps (:mod:`model.quant.rtn`)."""
    small_numel: int = 65_536
    """Matrices with at most so many weights stay float16, as in the field."""
    codec: Codec = "brotli"

    def __post_init__(self) -> None:
        for name in ("matrix_bits", "embed_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"pack.{name} must be 2 to 8, got {getattr(self, name)}")
        if self.small_numel < 0:
            raise ValueError(f"pack.small_numel must be 0 or more, got {self.small_numel}")
        if self.codec not in CODECS:
            raise ValueError(f"pack.codec must be one of {', '.join(CODECS)}, got {self.codec!r}")


def pack_stage(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    """Round and compress the checkpoint of the train stage, or of ``adapt.prequant`` where that was run; then its note
    of what the weights were trained on goes along.

    Returns:
        ``model_bytes`` (size of the artifact), ``weight_rmse`` (root mean square rounding error).
    """
    config: PackConfig = job.config.pack
    if not gang.chief:
        return {}
    source = Path(job.inputs.get("adapt.prequant") or job.inputs["train"])
    weights = read_container(source / CHECKPOINT)
    if (source / EXPOSURE).is_file():
        shutil.copyfile(source / EXPOSURE, out / EXPOSURE)
    packed = pack_weights(weights, config)
    size = write_container(out / ARTIFACT, packed, config.codec)
    restored = unpack_weights(packed)
    squares = sum(float((weights[name] - restored[name]).double().square().sum()) for name in weights)
    count = sum(w.numel() for w in weights.values())
    gang.log(f"Serialized model int{config.matrix_bits}+{config.codec}: {size} bytes")
    return {"model_bytes": size, "weight_rmse": (squares / count) ** 0.5}


def pack_weights(weights: Mapping[str, Tensor], config: PackConfig) -> dict[str, Tensor]:
    """Weights by name -> the tensors of an artifact: int8 with ``#scale`` beside it, or float16."""
    packed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        table = name == "embedding" or name.endswith(".table") or name.startswith("head.")
        bits = config.embed_bits if table else config.matrix_bits
        if weight.ndim == 2 and weight.numel() > config.small_numel:
            rounding = config.tables if table else config.matrices
            rounded = round_rows(weight, bits) if rounding is None else rounding.round(weight, bits)
            packed[name], packed[name + SCALE] = rounded
        else:
            packed[name] = weight.half()
    return packed


def unpack_weights(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights that an artifact stands for."""
    return {
        name: unround_rows(tensor, packed[name + SCALE]) if tensor.dtype == torch.int8 else tensor.float()
        for name, tensor in packed.items()
        if not name.endswith(SCALE)
    }


def load_artifact(path: Path) -> dict[str, Tensor]:
    """The weights in an artifact.

    Raises:
        ValueError: it is missing, damaged or incomplete.
    """
    try:
        return unpack_weights(read_container(path))
    except KeyError as error:
        raise ValueError(f"{path}: tensor {error} is missing") from error
