from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from model.report import StageReport
from model.stages import Stage
from service.experiment import Experiment, contend
from service.inference import FIELD_DENSITIES
from service.leaderboard import frontier_on, side_of
from service.notes import note_of
from service.report.gates import Against, judged
from service.scripts import read_source, script_experiment
from service.spec import Budget, GangShape, RunSpec
from service.verdicts import Side, judge, known_rules
from service.view import ConfigState, states_of

SEEDS = (7, 8, 9)
BASE = {7: 1.30, 8: 1.31, 9: 1.33}
OURS = {7: 1.20, 8: 1.22, 9: 1.21}
NATS_PER_BPB = FIELD_DENSITIES["sp8192"].nats_per_bpb
Make = Callable[..., tuple[ConfigState, ConfigState]]


def states(
    spec: RunSpec, corpus: Corpus, values: tuple[Mapping[int, float], ...], nats: float, exposed: float
) -> tuple[ConfigState, ConfigState]:
    """A winner and its base with these scores, straight from reports."""
    overlays: tuple[dict[str, Any], ...] = ({}, {"score.slot.lr": 0.5})
    stages = (Stage.SLIDING, Stage.SLOT)
    contenders = tuple(contend(spec.at(o), o, SEEDS, corpus, s, (s,)) for o, s in zip(overlays, stages, strict=True))
    note = note_of(Experiment(name="x", seeds=SEEDS, contenders=contenders), git_sha="", git_dirty=False, started_s=0.0)
    found = {}
    for contender, scores in zip(contenders, values, strict=True):
        for seed, plan in contender.plans.items():
            metrics = {"val_bpb": scores[seed], "val_loss_nats": nats * scores[seed], "exposed": exposed}
            for planned in plan:
                report = StageReport(stage=str(planned.stage), seed=seed, elapsed_s=1.0, metrics=metrics, outputs={})
                found[planned.key] = report
    base, ours = states_of(note, found.get, alive=False)
    return ours, base


@pytest.fixture
def make(spec: RunSpec, corpus: Corpus) -> Make:
    """``make(corpus="fineweb-sp8192-8", tokenizer=..., exposed=0, nats=...)``: a winner and its base."""

    def build(
        corpus_name: str = "pd_mix_v1",
        exposed: float = 0,
        nats: float = NATS_PER_BPB,
        **of_base: str,
    ) -> tuple[ConfigState, ConfigState]:
        ours, base = states(spec, corpus, (BASE, OURS), nats, exposed)
        named = {name: replace(one.config, params={**one.config.params, "corpus": corpus_name}) for name, one in
                 (("ours", ours), ("base", base))}  # fmt: skip
        base = replace(base, config=replace(named["base"], **of_base))
        return replace(ours, config=named["ours"]), base

    return build


def of(found: tuple[Against, ...]) -> tuple[Against, Against]:
    base, field = found
    return base, field


def test_the_base_is_judged_by_every_rule_set_as_anybody_else_is(make: Make) -> None:
    ours, base = make()
    against, field = of(judged(ours, base))
    density = replace(FIELD_DENSITIES["sp8192"], tokenizer="x")
    sides = (Side(name="a", bpb=ours.bpb, density=density), Side(name="b", bpb=base.bpb, density=density))
    plain = [judge(rules, *sides) for rules in known_rules().values()]
    assert [verdict.kept for verdict in against.verdicts] == [verdict.kept for verdict in plain]
    for found, other in zip(against.verdicts, plain, strict=True):
        for one, two in zip(found.gates, other.gates, strict=True):
            assert one.test is not None
            assert two.test is not None
            assert (one.test.difference, one.test.p) == pytest.approx((two.test.difference, two.test.p))
    assert "this is corpus pd_mix_v1" in field.why_not
    assert not field.verdicts


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokenizer": "0123"}, "tokenizers differ"),
        ({"corpus": "0123"}, "corpora differ"),
    ],
)
def test_scores_over_another_text_or_tokenizer_are_never_compared(
    make: Make, change: Mapping[str, str], reason: str
) -> None:
    ours, base = make(**change)
    against, _ = of(judged(ours, base))
    assert reason in against.why_not
    assert not against.verdicts


def test_scores_that_measured_other_tokens_are_not_compared_whatever_the_names_say(
    make: Make, spec: RunSpec, corpus: Corpus
) -> None:
    ours, base = make()
    other, _ = states(spec, corpus, (BASE, OURS), NATS_PER_BPB * 1.01, 0)
    assert "bytes per token" in of(judged(replace(other, config=ours.config), base))[0].why_not


def test_a_score_that_leaks_is_held_against_nothing(make: Make) -> None:
    ours, base = make("fineweb-sp8192-8", exposed=5)
    assert all("memorisation" in one.why_not and not one.verdicts for one in judged(ours, base))


def test_the_base_isn_t_held_against_itself(make: Make) -> None:
    _, base = make()
    assert of(judged(base, base))[0].why_not == "It is the base itself."


def test_on_the_field_s_text_the_best_record_of_the_same_tokenizer_is_met_and_the_frontier_only_if_it_is_that(
    make: Make,
) -> None:
    _, field = of(judged(*make("fineweb-sp8192-80")))
    frontier = frontier_on()
    assert field.verdicts
    if frontier.tokenizer == "sp8192":
        assert (field.title, field.aside) == (f"the field's frontier, {frontier.title}", "")
        expected = judge(known_rules()["pgolf-2026-04"], Side(name="a", bpb=make()[0].bpb), side_of(frontier))
        assert field.verdicts[1].kept == expected.kept
    else:
        assert frontier.tokenizer in field.aside
        assert "sp8192" in field.title


def test_another_tokenizer_than_the_frontier_s_is_told_and_one_without_a_record_meets_none(make: Make) -> None:
    nats = FIELD_DENSITIES["sp1024"].nats_per_bpb
    _, field = of(judged(*make("fineweb-sp1024-80", nats=nats)))
    assert "isn't held against sp1024" in field.aside
    assert field.title.startswith("the field's best on sp1024")
    _, none = of(judged(*make("fineweb-sp512-80")))
    assert "No record is on sp512." in none.why_not


def test_a_part_of_the_field_s_text_is_not_held_against_the_whole(make: Make) -> None:
    _, field = of(judged(*make("fineweb-sp8192-80", nats=NATS_PER_BPB * 1.05)))
    assert "Not the whole validation text" in field.why_not


def test_a_script_is_held_against_its_own_base_where_both_scored_the_same_tokens_and_never_against_the_field(
    tmp_path: Path,
) -> None:
    (tmp_path / "train_gpt.py").write_text("print(1)\n", encoding="utf-8")
    source, gang = read_source(tmp_path / "train_gpt.py"), GangShape(ranks=1, threads=1, device="cpu")
    experiment = script_experiment(source, SEEDS, {}, gang, Budget(), [{"GAIN": "5"}])
    note = note_of(experiment, git_sha="", git_dirty=False, started_s=0.0)
    for density, kept in ((NATS_PER_BPB, True), (NATS_PER_BPB * 1.1, False)):
        found = {}
        for contender, scores, nats in zip(experiment.contenders, (BASE, OURS), (NATS_PER_BPB, density), strict=True):
            for seed, (planned,) in contender.plans.items():
                metrics = {"val_bpb": scores[seed], "val_loss_nats": nats * scores[seed]}
                found[planned.key] = StageReport(stage="script", seed=seed, elapsed_s=1.0, metrics=metrics)
        base, ours = states_of(note, found.get, alive=False)
        against, field = of(judged(ours, base))
        assert bool(against.verdicts) is kept
        assert "which text this script scored isn't known" in field.why_not
