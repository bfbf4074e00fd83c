"""Bits and steps of each matrix, so that the artifact lands just below its cap and its bytes are where the loss minds.

Every matrix is tried with steps from fine to coarse, multiples of its rows' standard deviations as SDClip has them. A
setting costs the bytes of its integers' entropy and, in loss, half the squared errors times the loss's curvature (the
diagonal of the Fisher information on train tokens). One price of a byte (a Lagrangian) then picks a setting for each,
which is what the best marginal return gives; it is bisected to the cap by these estimates, and the steps of all of them
are brought to the real size, coded by the real codec, by one factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.gang import Gang
from model.job import Job
from model.quant.calibrate import loss_curvature, net_of, train_rows
from model.quant.rtn import clipped, unround_rows

STEPS_OF_SD = tuple(0.048 * 2 ** (i / 3) for i in range(16))
"""Tried steps, 0.048 to 1.5 standard deviations of a row: about 6.4 to 1.5 bits of entropy a weight."""
REACH_SD = 6.0
"""A setting has the fewest bits whose largest integer reaches so far, and 3 to 8."""
FILLED = 0.999
"""Of the room: less is no fit as long as more can be had."""
AIM = 0.9995
TRIES = 10
CURVATURE_BATCHES, CURVATURE_SEQS = 4, 8
"""Of train sequences that the curvature is taken on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SdSteps:
    """SDClip (:mod:`model.quant.sdclip`), named by its step."""

    step_sd: float

    def round(self, weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integers int8 (O, I) and scales float16 (O,)."""
        return clipped(weight_OI, self.step_sd * (2 ** (bits - 1) - 1) * weight_OI.float().std(dim=1), 0.0, bits)


Settings = dict[str, tuple[int, SdSteps]]
"""Bits and rounding of each matrix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to round one matrix, and what it is estimated to cost."""

    bits: int
    step_sd: float
    size_bytes: float
    loss_nats: float


def curvature_of(weights: Mapping[str, Tensor], job: Job, gang: Gang) -> dict[str, Tensor]:
    """The loss's curvature on train tokens at each weight, on the CPU."""
    rows = train_rows(job, CURVATURE_BATCHES, CURVATURE_SEQS, gang)
    return {name: part.cpu() for name, part in loss_curvature(net_of(weights, job, gang), rows, gang).items()}


def fit_to_room(
    matrices: Mapping[str, Tensor],
    curvature: Mapping[str, Tensor],
    pack: Callable[[Settings], dict[str, Tensor]],
    size_of: Callable[[Mapping[str, Tensor]], int],
    room_bytes: int,
    log: Callable[[str], None],
) -> tuple[dict[str, Tensor], float]:
    """The tensors of an artifact of at most ``room_bytes``, and what their rounding is estimated to cost in nats.

    It takes ``FILLED`` of the room and more, unless even the finest steps leave more of it.

    Raises:
        ValueError: even the coarsest steps take more; the message has both sizes.
    """
    tried = {name: [tried_setting(w, curvature[name], sd) for sd in STEPS_OF_SD] for name, w in matrices.items()}
    coarsest = size_of(pack(as_settings({name: rows[-1] for name, rows in tried.items()})))
    if coarsest > room_bytes:
        raise ValueError(
            f"pack.fit_to leaves {room_bytes} bytes for the model, which takes {coarsest} with the coarsest steps; "
            "allow more, or take a smaller network"
        )
    beside = coarsest - sum(rows[-1].size_bytes for rows in tried.values())
    chosen, finest = cheapest(tried, room_bytes * AIM - beside), cheapest(tried, math.inf)
    best: dict[str, Tensor] | None = None
    low, high, factor, most = -math.inf, math.inf, 1.0, 0
    for attempt in range(TRIES):
        packed = pack(as_settings(chosen, factor))
        size = size_of(packed)
        log(f"fit:{attempt + 1} model:{size} room:{room_bytes} steps:x{factor:.5f}")
        if size <= room_bytes and size > most:
            best, most = packed, size
        if FILLED * room_bytes <= size <= room_bytes or (size < room_bytes and chosen == finest):
            break
        # A step's logarithm, in octaves, is what each weight's entropy gives up.
        octaves = math.log2(factor)
        low, high = (octaves, high) if size > room_bytes else (low, octaves)
        weights = sum(matrix.numel() for matrix in matrices.values())
        wanted = octaves + 8 * (size - AIM * room_bytes) / weights
        factor = 2.0 ** (wanted if low < wanted < high else (low + high) / 2)
    assert best is not None
    return best, sum(setting.loss_nats for setting in chosen.values())


def tried_setting(weight_OI: Tensor, curvature_OI: Tensor, step_sd: float) -> Setting:
    """Round one matrix and count."""
    bits = next((b for b in range(3, 8) if (2 ** (b - 1) - 1) * step_sd >= REACH_SD), 8)
    q, scale = SdSteps(step_sd=step_sd).round(weight_OI, bits)
    counts = torch.bincount(q.flatten().int() + 128).double()
    share = counts[counts > 0] / q.numel()
    errors = (weight_OI - unround_rows(q, scale)).square() * curvature_OI
    return Setting(
        bits=bits,
        step_sd=step_sd,
        size_bytes=float(-(share * share.log2()).sum()) * q.numel() / 8,
        loss_nats=float(errors.double().sum()) / 2,
    )


def cheapest(tried: Mapping[str, list[Setting]], room_bytes: float) -> dict[str, Setting]:
    """For each matrix the setting with the least loss + price x bytes, at the least price that keeps the room."""

    def at(price: float) -> dict[str, Setting]:
        cost = {
            name: [(row.loss_nats + price * row.size_bytes, i) for i, row in enumerate(rows)]
            for name, rows in tried.items()
        }
        return {name: tried[name][min(costs)[1]] for name, costs in cost.items()}

    low, high = -40.0, 40.0  # of the price's binary logarithm
    for _ in range(60):
        middle = (low + high) / 2
        fits = sum(setting.size_bytes for setting in at(2.0**middle).values()) <= room_bytes
        low, high = (low, middle) if fits else (middle, high)
    return at(2.0**high)


def as_settings(chosen: Mapping[str, Setting], factor: float = 1.0) -> Settings:
    """Bits and rounding of each matrix, its steps times ``factor``."""
    return {name: (one.bits, SdSteps(step_sd=one.step_sd * factor)) for name, one in chosen.items()}
