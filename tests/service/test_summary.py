from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, Race, contend, lookup
from service.money import Price
from service.racing import Racing
from service.results import GroupResult
from service.spec import RunSpec
from service.summary import Start, summary_lines

SEEDS = (7, 8, 9)
BASE = {7: 2.30, 8: 2.31, 9: 2.33}
TRIAL = {7: 2.28, 8: 2.295, 9: 2.305}


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    trial = contend(spec.at({"score.slot.lr": 0.5}), {"score.slot.lr": 0.5}, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,))
    return Experiment(name="rates-tiny", seeds=SEEDS, contenders=(base, trial))


Measure = Callable[..., tuple[GroupResult, ...]]


@pytest.fixture
def measure(experiment: Experiment, store: FolderStore, finish: Callable[..., Any]) -> Measure:
    """``measure(base, trial, exposed=0)``: groups whose seeds measured that; seeds that aren't given didn't finish."""

    def make(base: Mapping[int, float], trial: Mapping[int, float], exposed: float = 0) -> tuple[GroupResult, ...]:
        for contender, values in zip(experiment.contenders, (base, trial), strict=True):
            for seed, value in values.items():
                for planned in contender.plans[seed]:
                    if store.find(planned.key) is None:
                        last = planned is contender.plans[seed][-1]
                        finish(store, planned, {"val_bpb": value, "exposed": exposed} if last else None)
        return tuple(lookup(contender, store) for contender in experiment.contenders)

    return make


def test_the_winner_is_told_with_its_paired_difference_interval_and_p(
    experiment: Experiment, store: FolderStore, measure: Measure
) -> None:
    start = Start(experiment, store, Price(node_usd_per_hour=16.0))
    groups = measure(BASE, TRIAL)
    summary = start.summary(groups, "~/records/x", True)
    values, differences = list(TRIAL.values()), np.subtract(list(TRIAL.values()), list(BASE.values()))
    winner, versus = summary["winner"], summary["vs_base"]
    assert (winner["config"], winner["score"], winner["n"], winner["leaks"]) == ("lr=0.5", "score.slot", 3, False)
    assert (winner["mean_bpb"], winner["sd_bpb"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    half = stats.t.ppf(0.975, 2) * np.std(differences, ddof=1) / np.sqrt(3)
    p = stats.ttest_rel(list(TRIAL.values()), list(BASE.values()), alternative="less").pvalue
    assert (versus["pairs"], versus["mean_bpb"]) == (3, pytest.approx(np.mean(differences)))
    assert (versus["ci95_bpb"], versus["p_one_sided"]) == pytest.approx((half, p))
    assert summary["stages"] == {"computed": 12, "cached": 0}
    hours = sum(store.made_of(key).gang_s for key in start.ranks) / 3600  # type: ignore[union-attr]
    assert (summary["gpu_hours"], summary["usd"]) == pytest.approx((hours, hours * 16 / 8))
    lines = summary_lines(summary)
    assert len(lines) <= 8
    assert lines[0] == "winner    2.2933 ± 0.0126 (n=3), score.slot, lr=0.5"
    assert (
        lines[1] == f"vs base   {np.mean(differences):+.4f} ± {half:.4f} (95 % CI), 3 pairs, one-sided paired p {p:.2g}"
    )
    assert lines[2].startswith("stages    12 computed, 0 cached; ")
    assert lines[3].endswith("USD) at 16 USD a node-hour, CPU ranks counted as GPUs")
    assert lines[4] == "record    ~/records/x  (verified)"


def test_what_was_finished_before_costs_nothing(experiment: Experiment, store: FolderStore, measure: Measure) -> None:
    groups = measure(BASE, TRIAL)
    summary = Start(experiment, store, Price()).summary(groups)
    assert (summary["stages"], summary["usd"]) == ({"computed": 0, "cached": 12}, 0.0)
    assert not [line for line in summary_lines(summary) if line.startswith("record")]


@pytest.mark.parametrize(("seeds", "text"), [((7, 8), "2 pairs, too few for a p"), ((7,), "1 pair, too few for a p")])
def test_of_two_pairs_or_fewer_it_says_so(
    spec: RunSpec, corpus: Corpus, store: FolderStore, measure: Measure, seeds: tuple[int, ...], text: str
) -> None:
    groups = measure(BASE, TRIAL)
    few = tuple(replace(group, seeds={seed: group.seeds[seed] for seed in seeds}) for group in groups)
    contenders = tuple(
        contend(group.spec, group.overlay, seeds, corpus, group.headline, (group.headline,)) for group in few
    )
    summary = Start(Experiment(name="x", seeds=seeds, contenders=contenders), store, Price()).summary(few)
    assert summary["vs_base"]["p_one_sided"] is None
    assert text in summary_lines(summary)[1]


def test_equal_differences_have_no_p(experiment: Experiment, store: FolderStore, measure: Measure) -> None:
    groups = measure(dict.fromkeys(SEEDS, 2.5), dict.fromkeys(SEEDS, 2.25))
    summary = Start(experiment, store, Price()).summary(groups)
    assert (summary["vs_base"]["mean_bpb"], summary["vs_base"]["p_one_sided"]) == (-0.25, None)
    assert "-0.2500 ± 0.0000 (95 % CI), 3 pairs, no spread, so no p" in summary_lines(summary)[1]


def test_a_winner_that_leaks_is_called_that(experiment: Experiment, store: FolderStore, measure: Measure) -> None:
    summary = Start(experiment, store, Price()).summary(measure({}, TRIAL, exposed=5))
    assert summary["winner"]["leaks"]
    assert any("LEAKS" in line for line in summary_lines(summary))


def test_a_base_that_wins_and_an_experiment_without_a_winner_say_so(
    experiment: Experiment, store: FolderStore, measure: Measure
) -> None:
    start = Start(experiment, store, Price())
    half = start.summary(measure({7: 1.0}, {7: 2.0}))
    assert (half["winner"], half["vs_base"]) == (None, None)
    assert summary_lines(half)[0] == "winner    none: no config has all its seeds"
    done = start.summary(measure(dict.fromkeys((8, 9), 1.0), {}))
    assert (done["winner"]["config"], done["vs_base"]) == ("base", None)
    assert "it is the base" in summary_lines(done)[1]


def test_a_race_s_winner_speaks_by_the_seeds_that_confirmed_it(
    experiment: Experiment, spec: RunSpec, corpus: Corpus, store: FolderStore, measure: Measure, finish: Any
) -> None:
    fresh = contend(spec, {"score.slot.lr": 0.5}, (21, 22), corpus, Stage.SLOT, (Stage.SLOT,))
    raced = replace(experiment, race=Race(racing=Racing(confirm=(21, 22)), fresh=(fresh, fresh)))
    start = Start(raced, store, Price())
    base, trial = measure(BASE, TRIAL)
    for plan in fresh.plans.values():
        for planned in plan:
            finish(store, planned, {"val_bpb": 2.29} if planned is plan[-1] else None)
    summary = start.summary((base, replace(trial, won=True, confirmed=lookup(fresh, store))))
    assert summary["race"] == {"chose": [7, 8, 9], "confirmed": [21, 22]}
    assert (summary["winner"]["mean_bpb"], summary["winner"]["seeds"]) == (pytest.approx(2.29), [21, 22])
    assert summary["vs_base"]["pairs"] == 3
    assert summary["stages"]["computed"] == 12 + 6
    assert "fresh seeds 21, 22; chosen by seeds 7, 8, 9" in summary_lines(summary)[0]
