"""QK gain, SLOT and test-time training together: a drawn part of their product, each trial scored by TTT over SLOT."""

from __future__ import annotations

from model.stages import Stage
from service.space import Search
from service.spec import SweepSpec

COMBINED = SweepSpec(
    name="combined",
    recipe="tiny_ttt_slot",
    space={
        "net.qk_gain": (1.5, 4.0),
        "score.ttt.epochs": (1, 2, 3),
        "score.ttt.score_with.lr": (0.001, 0.004, 0.008),
        "score.ttt.score_with.steps": (4, 8),
    },
    objective=Stage.TTT,
    search=Search(how="random", trials=8),
)
"""36 points; training is shared by all that agree in the gain and the seed."""
