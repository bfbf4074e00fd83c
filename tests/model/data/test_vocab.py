from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.data.vocab import BOS, ByteTable, byte_table, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))


@pytest.fixture(scope="module")
def table(tokenizer: sentencepiece.SentencePieceProcessor) -> ByteTable:
    return byte_table(tokenizer)


words = st.sampled_from(
    ["the", "caddie", "72", "walks", "on", " ", "  ", "\n", "\t", "é", "漢字", "🏌️‍♀️", "e\u0301", "."]
)
texts = st.text(max_size=60) | st.lists(words, max_size=20).map("".join) | st.lists(words, max_size=20).map(" ".join)


@settings(max_examples=150)
@given(text=texts)
@example("a  b   c")
@example(" leading and trailing ")
@example("line\nline\r\n\tline")
@example("🏌️‍♀️ 👩‍👩‍👧 \U0001f3f4")
@example("literal \u2581\u2581 meta space")
@example("ﬁ Å ² ㍿")
@example("<s> </s> <unk> <0x41>")
@example("\u0000\u200b\ufeff\ufffd")
def test_bytes_of_the_tokens_after_bos_are_the_utf8_bytes_of_the_decoded_text(
    tokenizer: sentencepiece.SentencePieceProcessor, table: ByteTable, text: str
) -> None:
    tokens = np.array([BOS, *tokenizer.encode(text)])
    counted = table.count(tokens[:-1], tokens[1:])
    assert counted.sum() == len(tokenizer.decode(tokens[1:].tolist()).encode())


@given(first=texts, second=texts)
def test_bytes_of_documents_add_up_in_one_stream(
    tokenizer: sentencepiece.SentencePieceProcessor, table: ByteTable, first: str, second: str
) -> None:
    parts = [tokenizer.encode(first), tokenizer.encode(second)]
    stream = np.array([BOS, *parts[0], BOS, *parts[1]])
    counted = table.count(stream[:-1], stream[1:]).sum()
    assert counted == sum(len(tokenizer.decode(part).encode()) for part in parts)


def test_every_kind_of_id_counts_as_the_field_s_rule_says(
    tokenizer: sentencepiece.SentencePieceProcessor, table: ByteTable
) -> None:
    for token in range(tokenizer.get_piece_size()):
        piece = tokenizer.id_to_piece(token)
        if piece in ("<pad>", "<s>", "</s>", "<unk>"):
            row = (0, False, True)
        elif piece.startswith("<0x") and len(piece) == 6:
            row = (1, False, False)
        elif piece[0] == "\u2581":
            row = (len(piece[1:].encode()), True, False)
        else:
            row = (len(piece.encode()), False, False)
        assert (table.base[token], table.leading[token], table.boundary[token]) == row
    assert table.boundary.sum() == 4
    assert table.leading.sum() > 3


def test_a_leading_space_counts_except_after_a_boundary() -> None:
    table = ByteTable(
        base=np.array([0, 3, 2]), leading=np.array([False, True, False]), boundary=np.array([True, False, False])
    )
    previous, target = np.array([0, 1, 2, 0, 1]), np.array([1, 1, 1, 2, 0])
    assert table.count(previous, target).tolist() == [3, 4, 4, 2, 0]


def test_bos_is_the_id_that_the_tokenizer_gives_it(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert tokenizer.bos_id() == BOS


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_no_tokenizer_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.model: not a SentencePiece model"):
        load_tokenizer(path)
