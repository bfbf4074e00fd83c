"""A scorer from outside the project, by its name; docs/audit.md says what it must look like."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from model.codec import described
from model.score.scorer import Scorer


class Shadowed(Exception):
    """Another module of the same name came first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutsideScorer:
    """``package.module:Name``, a scorer or a class that makes one without arguments."""

    name: str
    folder: str = described()
    """Where ``package`` lies; empty: wherever Python finds it."""

    def load(self) -> Scorer:
        """The scorer.

        Raises:
            ValueError: it isn't there, can't be imported or made, is shadowed, or has no ``score_stream``; its own
                words, by its name.
        """
        module, _, name = self.name.partition(":")
        if self.folder and sys.path[:1] != [self.folder]:
            sys.path.insert(0, self.folder)
        try:
            imported = importlib.import_module(module)
            self._check_place(imported.__name__, getattr(imported, "__file__", None))
            found = getattr(imported, name)
            made = found() if isinstance(found, type) else found
        except (ImportError, AttributeError, Shadowed) as error:
            raise ValueError(f"scorer {self.name}: {error}") from error
        except Exception as error:
            raise ValueError(f"scorer {self.name}: {type(error).__name__}: {error}") from error
        if not callable(getattr(made, "score_stream", None)):
            raise ValueError(f"scorer {self.name} has no score_stream(net, stream, windows, tally, gang)")
        return cast(Scorer, made)

    def _check_place(self, module: str, file: str | None) -> None:
        """What was imported must be what was found, and named the result."""
        if not self.folder:
            return
        stem = Path(self.folder).joinpath(*module.split("."))
        places = {stem.with_suffix(".py").resolve(), (stem / "__init__.py").resolve()}
        if file is None or Path(file).resolve() not in places:
            raise Shadowed(f"Python imports {file or 'one of its own'} as {module}, not the file in {self.folder}")
