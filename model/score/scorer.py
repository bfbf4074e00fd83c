"""What a scorer is: anything that predicts a stream into a tally. The seam for new ones, also from outside."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.stream import Stream
from model.score.windows import WindowConfig


@runtime_checkable
class Scorer(Protocol):
    """One way to score; a config that knows how to run itself."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Predict every target of ``stream`` into ``tally``, and note there what is trained on."""
