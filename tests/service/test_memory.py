from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.adapt.adam import AdamRule
from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from model.adapt.ttt import Ttt
from model.codec import described, digest, encode
from service.memory import Memory
from service.source import modules_of
from service.spec import RunSpec
from sweeps.recipes import RECIPES
from sweeps.recipes.tiny import tiny


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Leaf:
    number: float
    zeta: Any = None
    alpha: Any = ()
    told: str = described("")


def specs() -> list[RunSpec]:
    named = [getattr(importlib.import_module(m), f)() for m, _, f in (w.partition(":") for w in RECIPES.values())]
    everything = dataclasses.replace(
        tiny().config,
        adapt=AdaptConfig(prequant=Prequant(rule=AdamRule())),
        score=dataclasses.replace(tiny().config.score, ttt=Ttt(score_with=Ttt())),
    )
    return [*named, dataclasses.replace(tiny(), config=everything)]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)
def test_a_config_has_the_form_the_digest_and_the_modules_that_it_has_without_memory(spec: RunSpec) -> None:
    memory = Memory()
    for value in (spec, spec.config, spec.config.score, spec.config.score, spec.config.net):
        assert memory.form(value).digest() == digest(value)
        assert memory.form(value).digest(12) == digest(value, 12)
        assert json.dumps(memory.encoded(value)) == json.dumps(encode(value))
        assert memory.form(value).modules == modules_of(value)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.just(-0.0)
)
VALUES = st.recursive(
    SCALARS | st.just(Path("/a b/ü")) | st.just(Colour.RED),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.text(), inner),
        st.builds(Leaf, number=SCALARS, zeta=inner, alpha=inner, told=st.text()),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_has_the_digest_and_the_form_that_it_has_without_memory(value: Any) -> None:
    memory = Memory()
    for _ in range(2):
        assert memory.form(value).digest() == digest(value)
        assert memory.encoded(value) == encode(value)


def test_equal_values_that_are_not_the_same_are_told_apart() -> None:
    memory = Memory()
    same = [Leaf(1.0), Leaf(1), Leaf(True), Leaf(0.0), Leaf(-0.0)]  # type: ignore[arg-type]
    assert len({memory.form(leaf).digest() for leaf in same}) == len({digest(leaf) for leaf in same}) == 5
    assert len({memory.token(leaf.number) for leaf in same}) == 5


def test_what_has_no_json_form_is_refused_as_without_memory() -> None:
    for value in (Leaf(math.nan), Leaf(math.inf), {"x": Leaf(0, zeta=math.nan)}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            Memory().form(value)
    with pytest.raises(TypeError, match="no JSON form"):
        Memory().form(Leaf(0, zeta=object()))
