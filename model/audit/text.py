"""The text behind the audited tokens, by decoding them: what the byte table must have counted."""

from __future__ import annotations

import codecs

import numpy as np
import sentencepiece

from model.data.vocab import BOS
from model.score.stream import Stream


def decoded_texts(stream: Stream, tokenizer: sentencepiece.SentencePieceProcessor) -> list[tuple[int, int]]:
    """Per document of ``stream``: its targets and the UTF-8 bytes of its text. A document begins with a BOS token.

    The stream may end inside a character that is spelled in bytes; those last targets are left out.

    Raises:
        ValueError: the stream doesn't begin with a document.
    """
    tokens = np.asarray(stream.tokens, dtype=np.int64)
    starts = np.flatnonzero(tokens == BOS)
    if len(starts) == 0 or starts[0] != 0:
        raise ValueError(f"the validation split begins with token {tokens[0]}, not with a BOS token ({BOS})")
    documents = [part[1:].tolist() for part in np.split(tokens, starts[1:])]
    cut = documents[-1]
    del cut[len(cut) - unfinished_bytes(cut, tokenizer) :]
    texts = tokenizer.decode(documents)
    # Each document but the first brings its BOS as a target, too; the first one's is where the stream begins.
    return [
        (len(ids) + (number > 0), len(text.encode()))
        for number, (ids, text) in enumerate(zip(documents, texts, strict=True))
    ]


def unfinished_bytes(ids: list[int], tokenizer: sentencepiece.SentencePieceProcessor) -> int:
    """How many byte tokens at the end of ``ids`` begin a character that isn't finished there."""
    start = len(ids)
    while start and tokenizer.is_byte(ids[start - 1]):
        start -= 1
    spelled = bytes(int(tokenizer.id_to_piece(token)[1:-1], 16) for token in ids[start:])  # "<0xE6>"
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(spelled)
    return len(decoder.getstate()[0])
