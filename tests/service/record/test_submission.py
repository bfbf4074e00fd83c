"""The typed rows, the schema and the page about them have the same keys, and what breaks the schema is named."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from service.record.schema import FILE, schema_differences
from service.record.submission import AlikeRow, BaseRow, GateRow, RulesRow, SeedRow, SubmissionFile, submission
from tests.service.record.conftest import Lab

SCHEMA = json.loads(FILE.read_text(encoding="utf-8"))
OF = SCHEMA["properties"]
RULES = OF["rules"]["additionalProperties"]
ROWS = {
    SubmissionFile: SCHEMA,
    SeedRow: OF["seed_results"]["additionalProperties"],
    AlikeRow: OF["same_tokenizer"],
    BaseRow: OF["versus_base"],
    RulesRow: RULES,
    GateRow: RULES["properties"]["gates"]["additionalProperties"],
}


@pytest.fixture(scope="module")
def written(module_lab: Lab) -> dict[str, Any]:
    base = module_lab.group()
    other = module_lab.group({"score.slot.lr": 0.012}, shift=-0.001)
    return submission(module_lab.record(other, base, other))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_a_row_has_the_schema_s_keys_in_its_order_and_null_where_it_may_be(row: Any) -> None:
    schema = ROWS[row]
    assert [one.name for one in fields(row)] == list(schema["properties"]) == schema["required"]
    for one in fields(row):
        kinds = schema["properties"][one.name]["type"]
        assert ("None" in str(one.type)) == ("null" in kinds), one.name
        assert row is SubmissionFile or schema["additionalProperties"] is False


def test_every_key_is_explained_in_the_schema_and_on_its_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "submission.md").read_text(encoding="utf-8")
    for row, schema in ROWS.items():
        for name, about in schema["properties"].items():
            assert about.get("description") or name in ("gates",), name
            assert f"`{name}`" in page, (row.__name__, name)


def test_what_is_written_fits_and_may_have_more_keys_on_top_alone(written: dict[str, Any]) -> None:
    assert list(schema_differences(written, "submission.json")) == []
    assert list(schema_differences(written | {"video": "none"}, "submission.json")) == []
    versus = written["versus_base"] | {"q_value": 0.1}
    [line] = schema_differences(written | {"versus_base": versus}, "submission.json")
    assert line.startswith("submission.json: $.versus_base breaks its schema: Additional properties")


@pytest.mark.parametrize(
    "wrong",
    [
        {"val_bpb": "1.08"},
        {"val_bpb": 0},
        {"val_bpb_std": -0.1},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"date": "22.11.2026"},
        {"p_value": 1.5},
        {"compliance": {"strict_prefix": "yes"}},
        {"seed_results": {"best": {}}},
        {"attribution": {"1394": "clarkkev"}},
        {"bytes_total": 15_000_000.5},
    ],
    ids=str,
)
def test_a_wrong_value_breaks_the_schema_by_its_place(written: dict[str, Any], wrong: dict[str, Any]) -> None:
    lines = list(schema_differences(written | wrong, "submission.json"))
    assert lines
    assert all(f"$.{next(iter(wrong))}" in line for line in lines)


def test_every_key_is_needed(written: dict[str, Any]) -> None:
    for name in written:
        rest = {key: value for key, value in written.items() if key != name}
        assert [f"'{name}' is a required property" in line for line in schema_differences(rest, "x")] == [True]
