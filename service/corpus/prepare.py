"""Documents -> SentencePiece tokenizer -> token shards, checked byte for byte; every finished part is kept.

The tokenizer is the field's: BPE, byte fallback, split digits, nmt_nfkc, no dummy prefix, pad/bos/eos/unk 0/1/2/3
(openai/parameter-golf, data/). Every document begins with the BOS id.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from model.data.shards import MANIFEST, Corpus, Tokens, open_corpus, read_shard, write_shard
from model.data.vocab import BOS, byte_table, load_tokenizer
from model.report import file_ref, write_json
from service.corpus.documents import SPLITS, Documents
from service.errors import CorpusError
from service.faults import Point, fault

Progress = Callable[[str], None]
"""Told in a few words what is being done."""

TOKENIZER = "tokenizer.model"
TOKENIZER_OPTIONS: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "nmt_nfkc",
    "add_dummy_prefix": False,
    "pad_id": 0,
    "bos_id": BOS,
    "eos_id": 2,
    "unk_id": 3,
    "max_sentence_length": 1 << 20,
    "num_threads": 1,
}


def prepare(documents: Documents, vocab_size: int, corpora: Path, progress: Progress) -> Corpus:
    """The prepared corpus of ``documents`` below ``corpora``; what is there already is checked and used.

    Raises:
        CorpusError: the documents can't be used, a check failed, or the folder can't be written.
    """
    if not 280 <= vocab_size <= 65_536:
        raise CorpusError(f"vocab_size {vocab_size}: 256 bytes, 4 control ids and some pieces need 280 to 65536")
    options = TOKENIZER_OPTIONS | {"vocab_size": vocab_size}
    recipe = json.dumps([documents.digest(), options, sentencepiece.__version__], sort_keys=True)
    folder = corpora / f"{documents.name}-sp{vocab_size}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return ready(folder) or _build(documents, options, folder, progress)
    except OSError as error:
        raise CorpusError(f"{folder}: can't write the corpus ({error}); CADDIE_HOME sets another place") from error


def ready(folder: Path) -> Corpus | None:
    """The corpus in ``folder`` if it is complete and every file has the size and SHA-256 of the manifest."""
    try:
        corpus = open_corpus(folder)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        refs = [manifest["tokenizer"], *(ref for refs in manifest["splits"].values() for ref in refs)]
        listed = [ref["sha256"] for ref in refs]
        found = [file_ref(folder, ref["path"]).sha256 for ref in refs]
    except (ValueError, KeyError, TypeError, OSError):
        return None
    return corpus if found == listed and corpus.digest == digest_of(listed) else None


def check_bytes(tokenizer: sentencepiece.SentencePieceProcessor, tokens: Tokens) -> int:
    """The bytes of text that ``tokens`` stand for, counted by the byte table and by decoding them.

    Raises:
        CorpusError: the two disagree, so that bits per byte would be wrong, or ``tokens`` are another tokenizer's.
    """
    stream = np.asarray(tokens, dtype=np.int64)
    if int(stream.max()) >= tokenizer.get_piece_size():
        raise CorpusError(
            f"token {stream.max()} is outside the tokenizer's {tokenizer.get_piece_size()}: "
            "shard and tokenizer don't belong together"
        )
    counted = int(byte_table(tokenizer).count(stream[:-1], stream[1:]).sum())
    starts = np.flatnonzero(stream == BOS)
    if len(starts) == 0 or starts[0] != 0:
        raise CorpusError("the stream doesn't begin with a BOS token: shard and tokenizer don't belong together")
    documents = [part[1:].tolist() for part in np.split(stream, starts[1:])]
    texts = tokenizer.decode(documents)
    decoded = sum(len(text.encode()) for text in texts)
    if counted != decoded:
        raise CorpusError(
            f"the byte table counts {counted} bytes but the decoded text has {decoded}: "
            "shard and tokenizer don't belong together, or the vocabulary lacks the lone space piece"
        )
    # Any tokenizer decodes any tokens; only the one that made them makes them again.
    changed = sum(again != ids for again, ids in zip(tokenizer.encode(texts), documents, strict=True))
    if changed > len(documents) / 2:
        raise CorpusError(
            f"{changed} of {len(documents)} documents become other tokens when their text is encoded again: "
            "shard and tokenizer don't belong together"
        )
    return counted


def _build(documents: Documents, options: dict[str, Any], folder: Path, progress: Progress) -> Corpus:
    model = folder / TOKENIZER
    tokenizer = _kept_tokenizer(folder)
    if tokenizer is None:
        progress(f"training a tokenizer of {options['vocab_size']} pieces")
        _write(model, _train_tokenizer(documents.split("train"), options))
        fault(Point.CORPUS_TOKENIZER)
        tokenizer = load_tokenizer(model)
    splits: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        name = f"{documents.name}_{split}_000000.bin"
        progress(f"{split}: encoding")
        tokens = _encode(tokenizer, documents.split(split), split)
        scratch = folder / f".{name}.{os.getpid()}"
        write_shard(scratch, tokens)
        os.replace(scratch, folder / name)
        fault(Point.CORPUS_SHARD)
        text_bytes = check_bytes(tokenizer, read_shard(folder / name))
        progress(f"{split}: {len(tokens):,} tokens, {text_bytes:,} bytes of text, byte table agrees")
        ref = file_ref(folder, name)
        splits[split] = [{"path": name, "sha256": ref.sha256, "tokens": len(tokens), "text_bytes": text_bytes}]
    hashes = [file_ref(folder, model.name).sha256, *(refs[0]["sha256"] for refs in splits.values())]
    manifest = {
        "name": documents.name,
        "digest": digest_of(hashes),
        "vocab_size": tokenizer.get_piece_size(),
        "tokenizer": {"path": model.name, "sha256": hashes[0]},
        "splits": splits,
        "documents_sha256": documents.digest(),
    }
    write_json(folder / MANIFEST, manifest)
    fault(Point.CORPUS_READY)
    return open_corpus(folder)


def _kept_tokenizer(folder: Path) -> sentencepiece.SentencePieceProcessor | None:
    """The tokenizer of an earlier prepare, also of one that broke off, unless it is damaged."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["tokenizer"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        listed = None
    try:
        sound = listed in (None, file_ref(folder, TOKENIZER).sha256)
        return load_tokenizer(folder / TOKENIZER) if sound else None
    except (OSError, ValueError):
        return None


def digest_of(hashes: Sequence[str]) -> str:
    """Names a corpus by its tokenizer and shards."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def _train_tokenizer(texts: Iterable[str], options: dict[str, Any]) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, minloglevel=2, **options
        )
    except RuntimeError as error:
        raise CorpusError(f"the tokenizer can't be trained: {error}") from error
    return model.getvalue()


def _encode(tokenizer: sentencepiece.SentencePieceProcessor, texts: Iterable[str], split: str) -> Tokens:
    documents = tokenizer.encode(list(texts))
    if not documents:
        raise CorpusError(f"the {split} split has no documents")
    return np.concatenate([np.array([BOS, *ids], dtype=np.uint16) for ids in documents])


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    os.replace(scratch, path)
