"""What the optional parts of the network are to it: configs that build a module, each in a file of its own.

A part that is off is ``None`` in :class:`GPTConfig <model.net.gpt.GPTConfig>`: it adds no parameter, and its file is
neither imported nor bundled. Every part has ``shrunk``, because a smaller network of the same make is built for audits.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

Seen = dict[str, Tensor]
"""What one forward has seen that later layers use, by name."""


class NetShape(Protocol):
    """What a part may know of the network."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def order(self) -> tuple[int, ...]: ...
    @property
    def skips(self) -> int: ...


class Part(Protocol):
    """Any of them."""

    def check(self, net: NetShape) -> None:
        """Raise ValueError where the part doesn't fit the network, with both values."""

    def shrunk(self, layers: int) -> Any:
        """The same part of a network with ``layers`` layers."""


@runtime_checkable
class EmbeddingPart(Part, Protocol):
    """Adds to the token embedding: its module takes ids (B, T) to (B, T, D)."""

    def embedding_part(self, net: NetShape) -> nn.Module: ...


@runtime_checkable
class InputPart(Part, Protocol):
    """Changes the normed embedding: its module takes x (B, T, D) and ids (B, T) to x."""

    def input_part(self, net: NetShape) -> nn.Module: ...


@runtime_checkable
class ValueTable(Part, Protocol):
    """Token identities for the values: a module from ids (B, T) to (B, T, K d), and for each layer that takes it a mix
    from values (B, T, K d) and :data:`Seen` to values."""

    def value_table(self, net: NetShape) -> nn.Module: ...
    def table_mix(self, layer: int, net: NetShape) -> nn.Module | None: ...


@runtime_checkable
class ValueMix(Part, Protocol):
    """Changes the values of a layer: a module from values (B, T, K d) and :data:`Seen` to values."""

    def value_mix(self, layer: int, net: NetShape) -> nn.Module | None: ...


@runtime_checkable
class AttentionFinish(Part, Protocol):
    """Changes what attention found: a module from y (B, T, H, d) and values (B, T, K, d) to y."""

    def attention_finish(self, layer: int, net: NetShape) -> nn.Module | None: ...


@runtime_checkable
class BlockPart(Part, Protocol):
    """How attention and MLP of a layer are joined: a subclass of Block."""

    def block_kind(self, layer: int) -> Any: ...


@runtime_checkable
class SkipPart(Part, Protocol):
    """How a U-Net skip comes in: a module from x, the scaled skip (B, T, D) and the number of the skip to x."""

    def skip_part(self, net: NetShape, skips: int) -> nn.Module: ...


@runtime_checkable
class LayerOrder(Part, Protocol):
    """In which order the layers run once training has come to ``start``, a fraction; before, one after the other."""

    @property
    def start(self) -> float: ...
    def order(self, layers: int) -> tuple[int, ...]: ...
