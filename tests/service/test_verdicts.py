from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import SpecError
from service.field_records import field_records
from service.inference import FIELD_DENSITIES
from service.stats import Sample
from service.verdicts import Side, find_rules, judge, known_rules


def side(pr: int) -> Side:
    record = next(record for record in field_records() if record.pr == pr)
    return Side(name=f"#{pr}", bpb=record.claimed, density=FIELD_DENSITIES[record.tokenizer])


def write(path: Path, **changes: Any) -> Path:
    gate = {"name": "mine", "test": "welch", "margin": 0.001, "unit": "bpb", "p_below": 0.05} | changes
    rules = {"name": "mine", "version": "1", "source": "me", "gates": [{k: v for k, v in gate.items() if v != "none"}]}
    path.write_text(json.dumps({"rules": [rules]}), encoding="utf-8")
    return path


def test_the_rules_that_come_along_have_name_version_and_source() -> None:
    assert list(known_rules()) == ["pgolf-readme", "pgolf-2026-04", "speedrun"]
    assert all(rules.version and rules.source and rules.gates for rules in known_rules().values())


def test_pr_1019_passes_the_readme_s_rule_by_a_hair_and_every_gate_is_shown() -> None:
    verdict = judge(known_rules()["pgolf-readme"], side(1019), side(549))
    assert verdict.kept
    assert [one.kept for one in verdict.gates] == [True, True, False]  # .00464 BPB: March's margin isn't reached
    assert "-0.007842 nats per token of sp1024" in verdict.gates[0].because
    assert "t = -4.29" in verdict.gates[1].because or "one-sided p = 0.00955" in verdict.gates[1].because
    assert verdict.to_json()["gates"][1]["p"] == pytest.approx(0.00955, abs=5e-6)


def test_a_step_of_april_passes_the_april_rule_and_not_the_readme_s() -> None:
    ours, theirs = side(1514), side(1413)
    assert judge(known_rules()["pgolf-2026-04"], ours, theirs).kept
    assert judge(known_rules()["pgolf-readme"], ours, theirs).kept is False


def test_the_speedrun_s_rule_asks_for_0_004_over_the_root_of_n() -> None:
    rules, density = known_rules()["speedrun"], FIELD_DENSITIES["sp8192"]
    base = Side(name="base", bpb=Sample(values={1: 1.08}), density=density)
    for short, kept in ((0.00405, True), (0.00395, False)):
        mean = 1.08 - density.bpb(short) / 2  # n = 4
        ours = Side(name="ours", bpb=Sample(values=dict.fromkeys(range(4), mean)), density=density)
        assert judge(rules, ours, base).kept is kept


def test_other_tokenizers_are_compared_in_bits_per_byte_and_the_margin_s_conversion_is_said() -> None:
    verdict = judge(known_rules()["pgolf-readme"], side(1394), side(1019))
    assert "theirs is sp1024, so only BPB compares" in verdict.gates[1].because
    assert "0.005 nats are 0.001936 BPB" in verdict.gates[1].because


def test_what_can_t_be_judged_is_neither_kept_nor_broken() -> None:
    rules = known_rules()["pgolf-readme"]
    unknown = Side(name="ours", bpb=side(1019).bpb)
    verdict = judge(rules, unknown, side(549))
    assert [one.kept for one in verdict.gates] == [None, None, False]
    assert verdict.kept is None
    assert "no nats" in verdict.gates[0].because
    alone = Side(name="ours", bpb=Sample(values={42: 1.0}), density=FIELD_DENSITIES["sp1024"])
    verdict = judge(rules, alone, side(549))
    assert (verdict.gates[0].kept, verdict.gates[1].kept, verdict.kept) == (True, None, None)
    assert "1 seed without a spread" in verdict.gates[1].because
    assert judge(rules, alone, None).kept is None


def test_a_user_s_own_file_is_judged_alike(tmp_path: Path) -> None:
    own = write(tmp_path / "rules.json", test="fixed_z", sd=0.0013, target=1.119, margin=0)
    (rules,) = find_rules(str(own))
    verdict = judge(rules, side(1019), None)
    assert verdict.kept
    assert "against the target 1.119" in verdict.gates[0].because


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": "sign"}, "'mine': test is difference"),
        ({"unit": "bits"}, "unit bpb or nats_per_token"),
        ({"p_below": 1.5}, "got 1.5"),
        ({"p_below": "none"}, "p_below goes with every test"),
        ({"sd": 0.1}, "sd goes with fixed_z alone"),
        ({"test": "fixed_z"}, "sd goes with fixed_z alone"),
        ({"test": "fixed_z", "sd": -1}, "above 0, got -1"),
        ({"target": 1.0}, "needs seeds on both sides"),
        ({"margin": "much"}, "margin must be a number, got 'much'"),
        ({"alpha": 0.1}, "no field 'alpha'"),
        ({"decides": False}, "no gate decides"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        find_rules(str(write(tmp_path / "rules.json", **changes)))


@pytest.mark.parametrize("text", ["", "[]", '{"rules": []}', '{"rules": [{}]}', '{"rules": 3}', "[" * 100_000])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"rules\.json: "):
        find_rules(str(path))


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SpecError, match="pgolf-readme, pgolf-2026-04, speedrun"):
        find_rules("pgolf")
