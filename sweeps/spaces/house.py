"""The house without its parts, one at a time: what ``caddie bench house`` trains for the same wall-clock again."""

from __future__ import annotations

from model.stages import Stage
from service.spec import SweepSpec
from sweeps.recipes.naive import WARMDOWN_FRAC

HOUSE_PARTS = SweepSpec(
    name="house",
    recipe="house_cpu",
    also=(
        (Stage.SLIDING, {"net.bigram": None}),
        (Stage.SLIDING, {"net.value_embedding": None}),
        (Stage.SLIDING, {"net.smear": None}),
        (Stage.SLIDING, {"net.mlp_mult": 2, "net.mlp_slope": 0.0}),
        (Stage.SLIDING, {"train.warmdown_frac": WARMDOWN_FRAC, "train.ema_decay": 0.0}),
        (Stage.SLIDING, {"train.optim.muon_row_normalize": False}),
        # On the same weights, then on the same artifacts.
        (Stage.SLIDING, {"pack.fit_to": None, "pack.gptq": None}),
        (Stage.SLIDING, {"score.windows.stride": 256}),
    ),
)
"""In the place of what is left out stands what ``naive_cpu`` has."""
