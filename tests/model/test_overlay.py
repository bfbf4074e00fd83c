from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.overlay import field_at, overlay, parse_value


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 0.5
    limit: float | None = None
    mode: Literal["fast", "safe"] = "safe"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    width: int = 6
    heads: int = 2
    name: str = "plain"
    flag: bool = False
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    extra: Inner | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")


finite = st.floats(allow_nan=False, allow_infinity=False)
changes = st.fixed_dictionaries(
    {},
    optional={
        "width": st.integers(-50, 50).map(lambda n: 2 * n),
        "name": st.text(),
        "flag": st.booleans(),
        "inner.rate": finite,
        "inner.limit": st.none() | finite,
        "inner.mode": st.sampled_from(["fast", "safe"]),
    },
)


@given(changes)
def test_overlay_sets_what_it_is_told_and_nothing_else_and_never_changes_the_original(change: dict[str, Any]) -> None:
    original = Outer()
    untouched = copy.deepcopy(original)
    changed = overlay(original, change)
    assert original == untouched
    for path in ("width", "heads", "name", "flag", "sizes", "inner.rate", "inner.limit", "inner.mode", "extra"):
        assert field_at(changed, path) == change.get(path, field_at(original, path))


def test_no_change_is_the_same_config() -> None:
    assert overlay(Outer(), {}) == Outer()


def test_fields_of_a_group_that_is_on_can_be_set() -> None:
    config = Outer(extra=Inner())
    assert overlay(config, {"extra.mode": "fast"}) == Outer(extra=Inner(mode="fast"))


def test_a_group_that_may_be_off_is_turned_off_by_none_and_no_other_is() -> None:
    assert overlay(Outer(extra=Inner()), {"extra": None}) == Outer()
    assert overlay(Outer(), {"extra": None}) == Outer()
    with pytest.raises(ValueError, match="inner is a group of fields"):
        overlay(Outer(), {"inner": None})
    with pytest.raises(ValueError, match="extra is off in this recipe"):
        overlay(Outer(extra=Inner()), {"extra": None, "extra.mode": "fast"})


@pytest.mark.parametrize(
    ("path", "value", "taken"),
    [
        ("inner.rate", 2, 2.0),
        ("inner.limit", 3, 3.0),
        ("inner.limit", None, None),
        ("flag", 1, True),
        ("flag", 0, False),
        ("flag", True, True),
        ("name", 17, "17"),
        ("width", 10**20, 10**20),
    ],
)
def test_a_value_becomes_the_type_of_its_field(path: str, value: Any, taken: Any) -> None:
    found = field_at(overlay(Outer(), {path: value}), path)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("path", "value", "way_out"),
    [
        ("width", 1.0, "width must be of type int, got 1.0"),
        ("width", True, "width must be of type int, got True"),
        ("width", "6", "width must be of type int, got '6'"),
        ("width", None, "width must be of type int, got None"),
        ("flag", 2, "flag must be of type bool, got 2"),
        ("flag", "yes", "flag must be of type bool, got 'yes'"),
        ("inner.rate", "0.5", "inner.rate must be of type float, got '0.5'"),
        ("inner.rate", True, "inner.rate must be of type float, got True"),
        ("inner.rate", None, "inner.rate must be of type float, got None"),
        ("inner.mode", "quick", "inner.mode must be one of 'fast', 'safe', got 'quick'"),
        ("sizes", (3,), "sizes can't be set from outside"),
        ("inner", 3, "inner is a group of fields, set one of them: inner.rate, inner.limit, inner.mode"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_way_out(path: str, value: Any, way_out: str) -> None:
    with pytest.raises(ValueError, match=re.escape(way_out)):
        overlay(Outer(), {path: value})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), 10**400], ids=["nan", "inf", "-inf", "huge"]
)
@pytest.mark.parametrize("path", ["inner.rate", "inner.limit"])
def test_a_float_field_refuses_what_is_not_a_finite_float(path: str, value: float) -> None:
    with pytest.raises(ValueError, match=path):
        overlay(Outer(), {path: value})


@pytest.mark.parametrize(
    ("path", "way_out"),
    [
        ("depth", "'depth': no field 'depth'; there is width, heads, name, flag, sizes, inner, extra"),
        ("inner.lr", "'inner.lr': no field 'lr'; there is inner.rate, inner.limit, inner.mode"),
        ("extra.rate", "'extra.rate': extra is off in this recipe"),
        ("width.x", "'width.x': width is a single value, it has no field 'x'"),
        ("", "no field ''"),
        ("inner.", "no field ''"),
    ],
)
def test_an_unknown_path_is_refused_with_what_exists(path: str, way_out: str) -> None:
    for act in (lambda: overlay(Outer(), {path: 1}), lambda: field_at(Outer(), path)):
        with pytest.raises(ValueError, match=re.escape(way_out)):
            act()


def test_the_checks_of_the_config_run() -> None:
    with pytest.raises(ValueError, match="heads=4 must divide width=6"):
        overlay(Outer(), {"heads": 4})


@pytest.mark.parametrize("change", [{"width": 9, "heads": 3}, {"heads": 4, "width": 8}])
def test_fields_that_only_fit_together_can_be_set_together_in_any_order(change: dict[str, Any]) -> None:
    for items in (list(change.items()), list(change.items())[::-1]):
        assert overlay(Outer(), dict(items)) == replace(Outer(), **change)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-4", -4),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("brotli", "brotli"),
        ("None", None),
        ("", ""),
    ],
)
def test_a_word_is_read_as_number_or_truth_or_text(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.integers() | finite)
def test_a_printed_number_is_read_back_as_itself(number: float) -> None:
    assert parse_value(repr(number)) == number
    assert type(parse_value(repr(number))) is type(number)


@runtime_checkable
class Speaks(Protocol):
    def speak(self) -> str: ...


@dataclass(frozen=True)
class Dog:
    loud: bool = False

    def speak(self) -> str:
        return "Wuff" if self.loud else "wuff"


@dataclass(frozen=True)
class Cat:
    def speak(self) -> str:
        return "miau"


@dataclass(frozen=True)
class Stone:
    weight: float = 1.0


@dataclass(frozen=True)
class House:
    pet: Speaks | None = None
    guard: Speaks = Dog()


def test_a_whole_group_can_be_replaced_or_turned_on_by_another_that_fits() -> None:
    assert overlay(House(), {"pet": Cat(), "guard": Cat()}) == House(pet=Cat(), guard=Cat())
    assert overlay(House(), {"guard": Cat(), "pet": Dog(loud=True)}).pet.speak() == "Wuff"


def test_a_group_of_another_kind_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"guard must be of type Speaks, got Stone"):
        overlay(House(), {"guard": Stone()})
