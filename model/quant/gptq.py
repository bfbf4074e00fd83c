"""GPTQ (Frantar et al. 2022, arXiv:2210.17323; openai/parameter-golf #1019, #1135, #1394): a matrix is rounded column
by column, and the columns that are still to come make up for the error, as the layer's inputs weigh it.

H = mean X^T X of the layer's inputs, damped once; columns in the order of falling diagonal ("act order"); U the upper
Cholesky factor of H^-1; the error of column i, (w_i - q_i) / U_ii, is taken from the later ones along U_i. The row
scales are those of whatever rounds without it (largest weight, clip search, SDClip).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.gang import Gang
from model.job import Job
from model.quant.calibrate import hessians_of, net_of, own_rows, train_rows

BLOCK_COLUMNS = 128
"""Later blocks are told of a block's errors at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gptq:
    """Defaults of #1394."""

    calibration: Literal["train", "self"] = "train"
    """On tokens of the train split, or on text that the network makes up itself (#1019)."""
    batches: int = 64
    batch_seqs: int = 48
    """Sequences of a batch, over all ranks together, of ``train.seq_len`` tokens."""
    temperature: float = 0.8
    """Of made-up text."""
    damping: float = 0.01
    """Added to H's diagonal, as a share of its mean; #1135 and #1423 add it twice."""
    act_order: bool = True

    def __post_init__(self) -> None:
        if self.calibration not in ("train", "self"):
            raise ValueError(f"pack.gptq.calibration must be 'train' or 'self', got {self.calibration!r}")
        if self.batches < 1 or self.batch_seqs < 1:
            raise ValueError(
                f"pack.gptq.batches and pack.gptq.batch_seqs must be 1 or more, got {self.batches}, {self.batch_seqs}"
            )
        if not 0 < self.damping <= 10 or not 0 < self.temperature <= 10:
            raise ValueError(
                f"pack.gptq.damping and pack.gptq.temperature must be in (0, 10], "
                f"got {self.damping} and {self.temperature}"
            )

    def hessians(self, weights: Mapping[str, Tensor], job: Job, gang: Gang) -> tuple[dict[str, Tensor], int]:
        """H by the weights' name, and over how many tokens."""
        net = net_of(weights, job, gang)
        if self.calibration == "train":
            rows = (inputs for inputs, _ in train_rows(job, self.batches, self.batch_seqs, gang))
            found, tokens = hessians_of(net, rows, gang)
        else:
            mine = -(-self.batches * self.batch_seqs // gang.world)
            ids = own_rows(net, mine, job.config.train.seq_len, self.temperature, job.seed, gang)
            found, tokens = hessians_of(net, ids.split(self.batch_seqs), gang)
        return found, tokens

    def round(self, weight_OI: Tensor, scale_O: Tensor, top: int, hessian_II: Tensor) -> Tensor:
        """Integers int8 (O, I) in [-top, top] for rows with these scales, float16."""
        weight_OI, scale_O = weight_OI.to(hessian_II.device), scale_O.to(hessian_II.device)
        return feed_errors(weight_OI, scale_O, top, hessian_II, self.damping, self.act_order).cpu()


def feed_errors(
    weight_OI: Tensor, scale_O: Tensor, top: int, hessian_II: Tensor, damping: float, act_order: bool
) -> Tensor:
    """GPTQ's integers, int8 (O, I). Columns that no input ever reached are rounded as they are."""
    diagonal = hessian_II.diagonal().double()
    order = (
        torch.argsort(diagonal, descending=True, stable=True)
        if act_order
        else torch.arange(len(diagonal), device=diagonal.device)
    )
    hessian = hessian_II.double()[order][:, order]
    # A dead column has no say and hears nothing; without a diagonal there would be no inverse.
    added = damping * diagonal.mean() + (diagonal[order] == 0) * diagonal.mean().clamp_min(1e-30)
    hessian.diagonal().add_(added)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    weight, scale = weight_OI.float()[:, order].clone(), scale_O.float()
    q = torch.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK_COLUMNS):
        here = slice(start, start + BLOCK_COLUMNS)
        block, own = weight[:, here].clone(), upper[here, here]
        errors = torch.empty_like(block)
        for i in range(block.shape[1]):
            q[:, start + i] = torch.round(block[:, i] / scale).clamp_(-top, top)
            errors[:, i] = (block[:, i] - q[:, start + i] * scale) / own[i, i]
            block[:, i:] -= errors[:, i : i + 1] * own[i, i:]
        weight[:, start + BLOCK_COLUMNS :] -= errors @ upper[here, start + BLOCK_COLUMNS :]
    return q[:, torch.argsort(order)].to(torch.int8)
