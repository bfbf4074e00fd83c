from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.data.shards import Corpus
from model.report import StageReport
from model.stages import Stage
from service.errors import CaddieError
from service.results import GroupResult, SeedResult, SeedStatus
from service.spec import RunSpec
from service.stages import plan_seed

Seed = Callable[..., SeedResult]


def report(stage: Stage, seed: int, **metrics: float) -> StageReport:
    return StageReport(stage=str(stage), seed=seed, elapsed_s=1.0, metrics=metrics)


@pytest.fixture
def seed_result(spec: RunSpec, corpus: Corpus) -> Seed:
    """``seed_result(seed, bpb, stages=4)``: a seed whose first ``stages`` stages have finished, SLOT 0.5 better."""

    def make(seed: int, bpb: float, stages: int = 4, error: str = "") -> SeedResult:
        reports = {
            Stage.TRAIN: report(Stage.TRAIN, seed, train_s=30.0),
            Stage.PACK: report(Stage.PACK, seed, model_bytes=1000),
            Stage.SLIDING: report(Stage.SLIDING, seed, val_bpb=bpb, eval_s=3.0),
            Stage.SLOT: report(Stage.SLOT, seed, val_bpb=bpb - 0.5),
        }
        finished = dict(list(reports.items())[:stages])
        return SeedResult(seed=seed, plan=plan_seed(spec, seed, corpus), reports=finished, error=error)

    return make


def group(spec: RunSpec, *seeds: SeedResult, headline: Stage = Stage.SLIDING) -> GroupResult:
    return GroupResult(spec=spec, overlay={}, seeds={seed.seed: seed for seed in seeds}, headline=headline)


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
def test_a_seed_runs_until_its_last_stage_is_there(seed_result: Seed, stages: int) -> None:
    assert seed_result(1, 2.0, stages).status is SeedStatus.RUNNING


def test_a_seed_with_every_stage_is_done(seed_result: Seed) -> None:
    assert seed_result(1, 2.0).status is SeedStatus.DONE


@pytest.mark.parametrize("stages", [0, 2, 4])
def test_a_seed_with_an_error_has_failed_whatever_else_it_has(seed_result: Seed, stages: int) -> None:
    assert seed_result(1, 2.0, stages, error="NaN at step 3").status is SeedStatus.FAILED


def test_a_group_s_numbers_are_those_of_its_finished_seeds(spec: RunSpec, seed_result: Seed) -> None:
    values = {42: 2.25, 1337: 2.5, 2024: 2.375}
    done = group(spec, *(seed_result(seed, bpb) for seed, bpb in values.items()))
    assert done.bpb.values == values
    assert done.bpb.mean == pytest.approx(np.mean(list(values.values())))
    assert done.bpb.sd == pytest.approx(np.std(list(values.values()), ddof=1))
    assert done.sample(Stage.SLOT).values == {seed: bpb - 0.5 for seed, bpb in values.items()}
    assert done.sample(Stage.TRAIN, "train_s").values == dict.fromkeys(values, 30.0)
    assert replace(done, headline=Stage.SLOT).bpb.values == done.sample(Stage.SLOT).values


def test_a_failed_or_running_seed_never_counts_in_a_mean_and_stays_in_view(spec: RunSpec, seed_result: Seed) -> None:
    seeds = (
        seed_result(1, 2.0),
        seed_result(2, 9.0, stages=4, error="cap exceeded"),
        seed_result(3, 9.0, stages=3),
        seed_result(4, 9.0, stages=0, error="bug"),
    )
    mixed = group(spec, *seeds)
    assert mixed.bpb.values == {1: 2.0}
    assert [result.seed for result in mixed.done] == [1]
    assert [result.seed for result in mixed.failed] == [2, 4]
    assert list(mixed.seeds) == [1, 2, 3, 4]


def test_a_group_without_a_finished_seed_has_no_mean(spec: RunSpec, seed_result: Seed) -> None:
    with pytest.raises(ValueError, match="no seed has finished"):
        _ = group(spec, seed_result(1, 2.0, stages=2)).bpb.mean


@pytest.mark.parametrize(
    ("headline", "exposed", "leaks"),
    [
        (Stage.SLOT, {Stage.SLOT: 1}, True),
        (Stage.SLOT, {Stage.SLOT: 0}, False),
        (Stage.SLOT, {Stage.SLIDING: 49}, False),
        (Stage.SLIDING, {Stage.SLOT: 49}, False),
        (Stage.SLIDING, {Stage.SLIDING: 2}, True),
        (Stage.SLIDING, {}, False),
    ],
)
@pytest.mark.parametrize("loss_on", ["context", "scored"])
def test_a_headline_leaks_when_one_of_its_scores_noted_so_whatever_the_config_says(
    spec: RunSpec,
    corpus: Corpus,
    loss_on: str,
    headline: Stage,
    exposed: dict[Stage, int],
    leaks: bool,
) -> None:
    spec = spec.at({"score.slot.loss_on": loss_on})
    plan = plan_seed(spec, 2, corpus)
    scores = {stage: report(stage, 2, val_bpb=2.0, exposed=exposed.get(stage, 0)) for stage in spec.scores}
    honest = {stage: report(stage, 1, val_bpb=2.0, exposed=0) for stage in spec.scores}
    seeds = (SeedResult(seed=1, plan=plan, reports=honest), SeedResult(seed=2, plan=plan, reports=scores))
    assert group(spec, *seeds, headline=headline).leaks is leaks


def test_a_group_without_a_score_does_not_leak_yet(spec: RunSpec, seed_result: Seed) -> None:
    assert group(spec).leaks is False
    assert group(spec, seed_result(1, 2.0, stages=2)).leaks is False


def test_a_missing_stage_says_what_the_seed_has(seed_result: Seed) -> None:
    with pytest.raises(CaddieError, match=r"seed 7 has no finished stage score\.slot; it has train, pack$"):
        seed_result(7, 2.0, stages=2).metric(Stage.SLOT, "val_bpb")
    with pytest.raises(CaddieError, match="it has none"):
        seed_result(7, 2.0, stages=0).metric(Stage.TRAIN, "train_s")


def test_a_missing_number_says_what_the_stage_measures(seed_result: Seed) -> None:
    with pytest.raises(CaddieError, match=r"score\.sliding measures eval_s, val_bpb, not val_loss"):
        seed_result(7, 2.0).metric(Stage.SLIDING, "val_loss")


def test_a_seed_knows_the_keys_of_its_plan(seed_result: Seed) -> None:
    result = seed_result(7, 2.0)
    assert {stage: result.key(stage) for stage in result.reports} == {p.stage: p.key for p in result.plan}


def test_a_group_is_called_by_what_differs_from_its_recipe(spec: RunSpec) -> None:
    assert group(spec).title == "base"
    changed = replace(group(spec), overlay={"score.slot.lr": 0.008, "score.slot.steps": 8})
    assert changed.title == "lr=0.008 steps=8"
