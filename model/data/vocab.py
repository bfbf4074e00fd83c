"""How many bytes of text each token stands for: the denominator of bits per byte.

The field's rule: control, unknown and unused ids have 0 bytes; byte tokens 1; any other piece the UTF-8 bytes of its
text without the leading U+2581, which itself counts one byte (a space) unless the token before is a boundary (a
control token). A vocabulary without a lone U+2581 piece counts three bytes for some spaces (openai/parameter-golf
#897); the corpus check in ``service.corpus`` catches every such case by comparing with the decoded text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

SPACE = "\u2581"
BOS = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteTable:
    """Per token id: its bytes without a leading space, whether it brings one, whether none is due after it."""

    base: NDArray[np.int64]
    leading: NDArray[np.bool_]
    boundary: NDArray[np.bool_]

    def count(self, previous: NDArray[np.integer], target: NDArray[np.integer]) -> NDArray[np.int64]:
        """Bytes (n,) of each ``target`` (n,) that follows ``previous`` (n,)."""
        return self.base[target] + (self.leading[target] & ~self.boundary[previous])


def load_tokenizer(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The SentencePiece model at ``path``.

    Raises:
        ValueError: it is missing or not a SentencePiece model.
    """
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a SentencePiece model ({error})") from error


def byte_table(tokenizer: sentencepiece.SentencePieceProcessor) -> ByteTable:
    """The table of ``tokenizer``, one row an id."""
    size = tokenizer.get_piece_size()
    base = np.zeros(size, dtype=np.int64)
    leading = np.zeros(size, dtype=np.bool_)
    boundary = np.zeros(size, dtype=np.bool_)
    for token in range(size):
        if tokenizer.is_control(token) or tokenizer.is_unknown(token) or tokenizer.is_unused(token):
            boundary[token] = True
        elif tokenizer.is_byte(token):
            base[token] = 1
        else:
            piece = tokenizer.id_to_piece(token)
            leading[token] = piece.startswith(SPACE)
            base[token] = len(piece.removeprefix(SPACE).encode())
    return ByteTable(base=base, leading=leading, boundary=boundary)
