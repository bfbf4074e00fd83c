"""A few documents of the embedded corpus, for real runs that take seconds."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

EMBEDDED = Path(__file__).resolve().parents[1] / "service/corpus/data/pd_mix_v1.jsonl.xz"


def write_documents(path: Path, val_letters: int | None = None) -> Path:
    """60 training and 3 validation documents; with ``val_letters``, so much of the first of those only."""
    with lzma.open(EMBEDDED, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    train = [row for row in rows if row["split"] == "train"][:60]
    val = [row for row in rows if row["split"] == "val"][:3]
    if val_letters is not None:
        val = [{**val[0], "text": val[0]["text"][:val_letters]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in (*train, *val)), encoding="utf-8")
    return path
