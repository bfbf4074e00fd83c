"""Documents to train a tokenizer and a model on: JSON lines ``{"split", "text"}``, plain or xz-compressed."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import CorpusError

EMBEDDED = Path(__file__).parent / "data"
"""Corpora that come with the project; each with a licence note beside it."""

SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """One file of documents under a name."""

    name: str
    path: Path

    def digest(self) -> str:
        """SHA-256 of the file as it lies on disk."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def split(self, split: str) -> Iterator[str]:
        """The texts of one split, in file order.

        Raises:
            CorpusError: the file can't be read, or a row isn't a document; the message has its line number.
        """
        number = 0
        try:
            with (lzma.open if self.path.suffix == ".xz" else open)(self.path, "rt", encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    row = json.loads(line)
                    if row["split"] not in SPLITS or not isinstance(row["text"], str):
                        raise CorpusError(f"{self.path}:{number}: split {row['split']!r}; it is one of {SPLITS}")
                    row["text"].encode()  # half a surrogate pair is JSON, but no text
                    if row["split"] == split:
                        yield row["text"]
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise CorpusError(f"{self.path}: can't be read ({error})") from error
        except UnicodeDecodeError as error:
            raise CorpusError(f"{self.path}: not UTF-8 after line {number} ({error})") from error
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeEncodeError) as error:
            raise CorpusError(f"{self.path}:{number}: not a document row ({error!r})") from error


def find_documents(name: str) -> Documents:
    """An embedded corpus by name, or a ``.jsonl`` or ``.jsonl.xz`` file by path.

    Raises:
        CorpusError: there is neither; the message lists the embedded ones.
    """
    embedded = {path.name.split(".")[0]: path for path in sorted(EMBEDDED.glob("*.jsonl.xz"))}
    if name in embedded:
        return Documents(name=name, path=embedded[name])
    path = Path(name).expanduser()
    if path.is_file():
        return Documents(name=path.name.split(".")[0], path=path)
    raise CorpusError(f"corpus {name!r} is neither embedded ({', '.join(embedded)}) nor a file")
