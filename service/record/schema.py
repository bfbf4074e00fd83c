"""``submission.json`` against its schema, ``service/data/submission.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FILE = Path(__file__).parents[1] / "data" / "submission.schema.json"
LONGEST = 300
"""Characters of a line."""


def schema_differences(found: Any, where: str) -> Iterator[str]:
    """A line for each place of ``found`` that breaks the schema."""
    for error in _validator().iter_errors(found):
        yield f"{where}: {error.json_path} breaks its schema: {error.message}"[:LONGEST]


@cache
def _validator() -> Validator:
    from jsonschema import Draft202012Validator  # a tenth of a second that only records need

    return Draft202012Validator(json.loads(FILE.read_text(encoding="utf-8")))
