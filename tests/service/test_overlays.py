from __future__ import annotations

import random
from typing import Any

import pytest

from model.adapt.sgd import SgdRule
from model.adapt.ttt import Ttt
from service.errors import SpecError
from service.overlays import Overlays
from service.spec import RunSpec, SweepSpec
from sweeps.recipes.tiny import tiny

VALUES: dict[str, tuple[Any, ...]] = {
    "score.slot.lr": (0.1, 1, 2, -1, "much", True),
    "score.slot.lr_min": (0.05, 0.001, 0.0),
    "score.slot.steps": (1, 2, 2.5),
    "score.slot": (None,),
    "score.ttt": (None, Ttt(rule=SgdRule())),
    "train.optim.muon_momentum": (0.5, 0.9),
    "train.steps": (5, 0, -3),
    "net.ln_scale": (True, 0, 1),
    "net.dims": (3,),
    "gang.ranks": (1, 2, 0),
    "budget.eval_s": (7, 7.5),
    "corpus": ("x", 3),
    "name": ("x",),
}


def outcome(at: Any, changes: dict[str, Any]) -> Any:
    try:
        return at(changes)
    except SpecError as error:
        return str(error)


def test_many_overlays_give_what_each_gives_alone_errors_included() -> None:
    base, dice = tiny(), random.Random(0)
    overlays = Overlays(base)
    right = wrong = 0
    for _ in range(600):
        paths = dice.sample(list(VALUES), dice.randint(0, 3))
        changes = {path: dice.choice(VALUES[path]) for path in paths}
        alone, together = outcome(base.at, changes), outcome(overlays.at, changes)
        assert together == alone, changes
        right, wrong = right + isinstance(alone, RunSpec), wrong + isinstance(alone, str)
        if isinstance(alone, RunSpec):
            assert together.digest() == alone.digest()
    assert min(right, wrong) > 100


def test_an_equal_value_of_another_type_is_not_taken_for_one_that_was_seen() -> None:
    overlays = Overlays(tiny())
    assert overlays.at({"score.slot.steps": 1}).config.score.slot.steps == 1
    for value in (1.0, True):
        with pytest.raises(SpecError, match="steps must be of type int"):
            overlays.at({"score.slot.steps": value})


def test_a_sweep_s_specs_are_its_overlays_over_the_base() -> None:
    sweep = SweepSpec(name="x", recipe="tiny", space={"score.slot.lr": (0.1, 0.2), "train.steps": (3, 4, 5)})
    base = tiny()
    assert sweep.specs(base) == [(stage, changes, base.at(changes)) for stage, changes in sweep.trials()]
