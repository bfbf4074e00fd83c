"""A scorer from outside the project, by its name; docs/audit.md says what it must look like."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import cast

from model.codec import described
from model.score.scorer import Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class OutsideScorer:
    """``package.module:Name``, a scorer or a class that makes one without arguments."""

    name: str
    folder: str = described()
    """Where ``package`` lies; empty: wherever Python finds it."""

    def load(self) -> Scorer:
        """The scorer.

        Raises:
            ValueError: it isn't there, or has no ``score_stream``.
        """
        module, _, name = self.name.partition(":")
        if self.folder and self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"scorer {self.name}: {error}") from error
        made = found() if isinstance(found, type) else found
        if not callable(getattr(made, "score_stream", None)):
            raise ValueError(f"scorer {self.name} has no score_stream(net, stream, windows, tally, gang)")
        return cast(Scorer, made)
