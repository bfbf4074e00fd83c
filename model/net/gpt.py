"""The network: the one forward that training, scoring and adaptation share.

The core of the SP1024 stack (openai/parameter-golf #175, #1303): tied embeddings, residual mix with x0, U-Net skips,
soft-capped logits. Dimensions: B batch, T positions, D model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.net.attention import Attention
from model.net.block import Block
from model.net.mlp import Mlp
from model.net.norm import rms_norm
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
    qk_gain: float = 4.0
    """Start value of the learned gain of each query head."""
    rope_dims: int = 16
    rope_base: float = 10_000.0
    rope_trained_len: int = 1024
    ln_scale: bool = True
    unet_skips: bool = True
    logit_cap: float = 30.0
    embed_std: float = 0.005

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
        self.blocks = nn.ModuleList(
            Block(
                Attention(config.dim, config.heads, config.kv_heads, config.qk_gain),
                Mlp(config.dim, config.mlp_mult),
                config.dim,
                norm_scale=(layer + 1) ** -0.5 if config.ln_scale else 1.0,
            )
            for layer in range(config.layers)
        )
        self.encoder_layers = config.layers // 2 if config.unet_skips else 0
        if self.encoder_layers:
            self.skip_scale = nn.Parameter(torch.ones(self.encoder_layers, config.dim))

    def hidden(self, ids_BT: Tensor, first_row: int = 0) -> Tensor:
        """Final-normed hidden states (B, T - first_row, D) of token ids (B, T), in the dtype of the running autocast.

        Rows before ``first_row`` are only looked back at: the last block computes no query and no MLP for them.
        """
        dtype = torch.get_autocast_dtype(ids_BT.device.type) if torch.is_autocast_enabled(ids_BT.device.type) else None
        x0 = rms_norm(F.embedding(ids_BT, self.embedding).to(dtype or self.embedding.dtype))
        cos, sin = self.rope(ids_BT.shape[1], ids_BT.device)
        x, saved = x0, []
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            if layer < self.encoder_layers:
                x = block(x, x0, cos, sin)
                saved.append(x)
                continue
            if saved:
                # Decoder block j takes the newest skip first: a U-Net over layers (#175).
                x = x + self.skip_scale[layer - self.encoder_layers].to(x.dtype) * saved.pop()
            x = block(x, x0, cos, sin, first_row if layer == last else 0)
        return rms_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Soft-capped float32 logits (..., V) of final-normed hidden states (..., D)."""
        raw = F.linear(hidden, self.embedding.to(hidden.dtype)).float()
        return self.logit_cap * torch.tanh(raw / self.logit_cap)

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token of ``targets_BT`` given ``ids_BT``."""
        logits = self.logits(self.hidden(ids_BT))
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())
