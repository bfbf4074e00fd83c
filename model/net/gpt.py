"""The network: the one forward that training, scoring and adaptation share.

The core of the SP1024 stack (openai/parameter-golf #175, #1303): tied embeddings, residual mix with x0, U-Net skips,
soft-capped logits. What a recipe adds to it lies in files of its own and comes in through :mod:`model.net.parts`.
Dimensions: B batch, T positions, D model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.net.attention import Attention
from model.net.block import Block
from model.net.capped_loss import capped_cross_entropy
from model.net.linear import Linear
from model.net.mlp import Mlp
from model.net.norm import rms_norm
from model.net.parts import (
    AttentionFinish,
    BlockPart,
    EmbeddingPart,
    InputPart,
    LayerOrder,
    Part,
    Seen,
    SkipPart,
    ValueMix,
    ValueTable,
)
from model.net.rope import Rope


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """The field's full size by default: #1303's stack without its hash embedding, gates and value tricks."""

    vocab_size: int = 1024
    layers: int = 11
    dim: int = 512
    heads: int = 8
    kv_heads: int = 4
    mlp_mult: int = 3
    mlp_slope: float = 0.5
    """Of the MLP's leaky ReLU, which is then squared; 0 is relu^2."""
    qk_gain: float = 4.0
    """Start value of the learned gain of each query head."""
    rope_dims: int = 16
    rope_base: float = 10_000.0
    rope_trained_len: int = 1024
    ln_scale: bool = True
    unet_skips: bool = True
    skip_gates: SkipPart | None = None
    bigram: EmbeddingPart | None = None
    smear: InputPart | None = None
    value_embedding: ValueTable | None = None
    value_residual: ValueMix | None = None
    xsa: AttentionFinish | None = None
    parallel: BlockPart | None = None
    recurrence: LayerOrder | None = None
    tie_embeddings: bool = True
    """The embedding is the head, too; otherwise the head is a matrix of its own that starts at zero."""
    logit_cap: float = 30.0
    embed_std: float = 0.005
    matrix_init: Literal["orthogonal", "uniform"] = "orthogonal"
    """How matrices that don't start at zero start: ``uniform`` is torch's own, within 1 / sqrt(inputs)."""

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.layers, self.dim, self.heads, self.kv_heads, self.mlp_mult) < 1:
            raise ValueError(f"net: sizes must be 1 or more, got {self}")
        if self.dim % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"net: heads must divide dim and kv_heads must divide heads, "
                f"got dim={self.dim}, heads={self.heads}, kv_heads={self.kv_heads}"
            )
        if self.rope_dims % 2 or not 4 <= self.rope_dims <= self.dim // self.heads:
            raise ValueError(
                f"net.rope_dims must be even, from 4 to the head's {self.dim // self.heads}, got {self.rope_dims}"
            )
        if self.logit_cap <= 0 or self.qk_gain <= 0 or self.embed_std <= 0:
            raise ValueError(
                f"net: logit_cap, qk_gain and embed_std must be above 0, "
                f"got {self.logit_cap}, {self.qk_gain}, {self.embed_std}"
            )
        if not 0 <= self.mlp_slope <= 1 or self.matrix_init not in ("orthogonal", "uniform"):
            raise ValueError(
                f"net.mlp_slope must be in [0, 1] and net.matrix_init orthogonal or uniform, "
                f"got {self.mlp_slope} and {self.matrix_init!r}"
            )
        if self.skip_gates is not None and not self.skips:
            raise ValueError(
                "net.skip_gates is set, but there is no skip: set net.unet_skips=true and net.layers to 2 or more"
            )
        for part in self.parts.values():
            part.check(self)

    @property
    def parts(self) -> dict[str, Part]:
        """The optional parts that are on, by field."""
        named = ("skip_gates", "bigram", "smear", "value_embedding", "value_residual", "xsa", "parallel", "recurrence")
        return {name: getattr(self, name) for name in named if getattr(self, name) is not None}

    @property
    def order(self) -> tuple[int, ...]:
        """The layers as they run in the finished network."""
        plain = tuple(range(self.layers))
        return plain if self.recurrence is None else self.recurrence.order(self.layers)

    @property
    def skips(self) -> int:
        """How many U-Net skips there are: the first half of the order saves them."""
        return len(self.order) // 2 if self.unet_skips else 0

    @property
    def parameters(self) -> int:
        """How many weights the network has; nothing is allocated."""
        with torch.device("meta"):
            return sum(weight.numel() for weight in GPT(self).parameters())

    def build(self) -> GPT:
        """A network with fresh weights from torch's global generator."""
        return GPT(self)


class GPT(nn.Module):
    """``hidden`` is the forward; ``logits`` and ``loss`` add the head. State names are stable: artifacts hold them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.logit_cap = config.logit_cap
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.dim))
        nn.init.normal_(self.embedding, std=config.embed_std)
        self.rope = Rope(config.rope_dims, config.rope_base, config.rope_trained_len)
        self.blocks = nn.ModuleList(build_block(config, layer) for layer in range(config.layers))
        if config.matrix_init == "uniform":
            start_uniform(self.blocks)
        self.unet_skips = config.unet_skips
        if config.skips:
            self.skip_scale = nn.Parameter(torch.ones(config.skips, config.dim))
        self.skip_gates = None if config.skip_gates is None else config.skip_gates.skip_part(config, config.skips)
        self.bigram = None if config.bigram is None else config.bigram.embedding_part(config)
        self.smear = None if config.smear is None else config.smear.input_part(config)
        self.value_embedding = None if config.value_embedding is None else config.value_embedding.value_table(config)
        self.head = None if config.tie_embeddings else Linear(config.dim, config.vocab_size, zero_init=True)
        self.deep_order = config.order
        self.deep_from = config.recurrence.start if config.recurrence is not None else 0.0
        self.deep = True

    @property
    def head_weight(self) -> Tensor:
        """The output layer (V, D)."""
        return self.embedding if self.head is None else self.head.weight

    @property
    def depths(self) -> tuple[float, ...]:
        """Progress of training, in [0, 1], at which the forward becomes another one; 0 is the first."""
        return (0.0, self.deep_from) if self.deep_from else (0.0,)

    def at_progress(self, progress: float) -> bool:
        """Training has come so far, in [0, 1]: depth recurrence begins at its point; whether it does so now."""
        before, self.deep = self.deep, progress >= self.deep_from
        return self.deep and not before

    def hidden(self, ids_BT: Tensor, first_row: int = 0) -> Tensor:
        """Final-normed hidden states (B, T - first_row, D) of token ids (B, T), in the dtype of the running autocast.

        Rows before ``first_row`` are only looked back at: the last block computes no query and no MLP for them.
        """
        x, seen = self.embed(ids_BT)
        x0 = x
        cos, sin = self.rope(ids_BT.shape[1], ids_BT.device)
        order = self.deep_order if self.deep else range(len(self.blocks))
        encoder = len(order) // 2 if self.unet_skips else 0
        blocks: list[Any] = list(self.blocks)
        saved: list[Tensor] = []
        for place, layer in enumerate(order):
            block = blocks[layer]
            if place >= encoder and saved:
                # Decoder block j takes the newest skip first: a U-Net over layers (#175).
                x = block.take_skip(x, self.skip_joiner(saved.pop(), place - encoder))
            x = block(x, x0, cos, sin, first_row if place == len(order) - 1 else 0, seen)
            if place < encoder:
                saved.append(x)
        return rms_norm(blocks[-1].leave(x))

    def embed(self, ids_BT: Tensor) -> tuple[Tensor, Seen]:
        """The input of the first block (B, T, D), and what later layers want to know of the tokens."""
        device = ids_BT.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.embedding.dtype
        x = F.embedding(ids_BT, self.embedding).to(dtype)
        if self.bigram is not None:
            x = x + self.bigram(ids_BT, dtype)
        x = rms_norm(x)
        if self.smear is not None:
            x = self.smear(x, ids_BT)
        return x, {} if self.value_embedding is None else {"token_values": self.value_embedding(ids_BT, dtype)}

    def skip_joiner(self, skip_BTD: Tensor, number: int) -> Callable[[Tensor], Tensor]:
        """What puts skip ``number`` of the decoder into a stream (B, T, D)."""
        scaled = self.skip_scale[number].to(skip_BTD.dtype) * skip_BTD
        if self.skip_gates is None:
            return lambda x: x + scaled
        gates = self.skip_gates
        return lambda x: gates(x, scaled, number)

    def logits(self, hidden: Tensor) -> Tensor:
        """Soft-capped float32 logits (..., V) of final-normed hidden states (..., D)."""
        raw = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        return self.logit_cap * torch.tanh(raw / self.logit_cap)

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token of ``targets_BT`` given ``ids_BT``."""
        if ids_BT.is_cuda:
            return self.fused_loss(ids_BT, targets_BT)
        logits = self.logits(self.hidden(ids_BT))
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())

    def fused_loss(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """:meth:`loss` without float32 logits; on a GPU by a kernel."""
        hidden = self.hidden(ids_BT)
        raw = F.linear(hidden, self.head_weight.to(hidden.dtype))
        return capped_cross_entropy(raw.flatten(0, 1), targets_BT.flatten(), self.logit_cap).mean()


@torch.no_grad()
def start_uniform(blocks: nn.Module) -> None:
    """Matrices that don't start at zero as torch's own linear layers start: uniform within 1 / sqrt(inputs)."""
    for module in blocks.modules():
        if isinstance(module, Linear) and not module.zero_init:
            bound = module.weight.shape[1] ** -0.5
            nn.init.uniform_(module.weight, -bound, bound)


def build_block(config: GPTConfig, layer: int) -> Block:
    """Layer ``layer`` with its parts; the first layer's values are kept as they are, before anything is added."""
    residual = None if config.value_residual is None else config.value_residual.value_mix(layer, config)
    table = None if config.value_embedding is None else config.value_embedding.table_mix(layer, config)
    mixes = (residual, table) if layer == 0 else (table, residual)
    attention = Attention(
        config.dim,
        config.heads,
        config.kv_heads,
        config.qk_gain,
        [mix for mix in mixes if mix is not None],
        None if config.xsa is None else config.xsa.attention_finish(layer, config),
    )
    kind = Block if config.parallel is None else config.parallel.block_kind(layer)
    norm_scale = (layer + 1) ** -0.5 if config.ln_scale else 1.0
    block: Block = kind(attention, Mlp(config.dim, config.mlp_mult, config.mlp_slope), config.dim, norm_scale)
    return block
