"""Recipes credit every pull request that their words name, under the names that the field's records have."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from service.field_records import all_records
from service.record.changes import changes_of
from service.record.credits import credits_of
from service.spec import Credit, RunSpec, parse_changes
from sweeps.recipes import RECIPES, credits


def build(name: str) -> RunSpec:
    module, _, function = RECIPES[name].partition(":")
    spec: RunSpec = getattr(importlib.import_module(module), function)()
    return spec


SPECS = {name: build(name) for name in RECIPES}
CREDITS = [one for one in vars(credits).values() if isinstance(one, Credit)] + list(credits.STACK)


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("_tiny")])
def test_every_pull_request_that_a_recipe_names_is_credited(name: str) -> None:
    module, _, function = RECIPES[name].partition(":")
    found = importlib.import_module(module)
    words = getattr(found, function).__doc__ or ""
    named = {int(number) for number in re.findall(r"#(\d+)", words)}
    if len([one for one in RECIPES.values() if one.startswith(f"{module}:")]) <= 2:
        named |= {int(number) for number in re.findall(r"#(\d+)", found.__doc__ or "")}
    assert named <= {one.pr for one in credits_of(SPECS[name])}


def test_authors_are_those_of_the_field_s_records() -> None:
    known = {record.pr: record.author for record in all_records()}
    assert CREDITS
    assert all(one.author == known[one.pr] for one in CREDITS if one.pr in known)


def test_one_pull_request_has_one_author() -> None:
    for pr in {one.pr for one in CREDITS}:
        assert len({one.author for one in CREDITS if one.pr == pr}) == 1, pr


def classes(value: Any) -> Iterator[str]:
    if is_dataclass(value):
        yield type(value).__name__
        for one in fields(value):
            yield from classes(getattr(value, one.name))


def test_each_part_that_is_credited_is_one_that_a_recipe_turns_on() -> None:
    there = {name for spec in SPECS.values() for name in classes(spec.config)}
    assert {one.when for one in CREDITS if one.when} <= there


def test_a_part_is_credited_where_it_is_on_and_nowhere_else() -> None:
    plain = SPECS["tiny"]
    off = plain.at({"score.slot": None})
    smeared = off.at(parse_changes(["net.smear=model.net.smear:SmearGate"]))
    assert {one.pr for one in credits_of(smeared)} - {one.pr for one in credits_of(off)} == {65}
    assert {one.pr for one in credits_of(plain)} - {one.pr for one in credits_of(off)} == {1084}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_baseline_is_a_recipe_and_what_differs_is_listed_once(name: str) -> None:
    baseline = SPECS[SPECS[name].baseline]
    changes = changes_of(baseline, SPECS[name])
    paths = [one.path for one in changes]
    assert len(set(paths)) == len(paths)
    assert bool(paths) == (baseline.name != name)
