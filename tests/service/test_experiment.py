from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.errors import CaddieError, ClusterError, FailureKind, StageFailed
from service.experiment import Contender, Experiment, best, contend, lookup, run_experiment
from service.ports import Engine
from service.results import GroupResult, SeedStatus
from service.spec import GangShape, RunSpec
from service.stages import PlannedStage

SEEDS = (42, 1337, 2024)
STAGES_OF_TINY = (Stage.TRAIN, Stage.PACK, Stage.SLIDING, Stage.SLOT)
GRID: list[dict[str, Any]] = [
    {"score.slot.lr": lr, "score.slot.steps": steps} for lr in (0.004, 0.012) for steps in (4, 12)
]
NAN = StageFailed("train", 1337, FailureKind.BUG, "rank 0: the training loss is nan at step 3")
MakeExperiment = Callable[..., Experiment]
MakeEngine = Callable[..., Any]


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> MakeExperiment:
    """``experiment(grid, search=True)``: the base's sliding score, and each overlay's SLOT score, over three seeds."""

    def make(grid: Sequence[dict[str, Any]] = GRID, search: bool = True) -> Experiment:
        base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
        trials = [contend(spec.at(o), o, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,)) for o in grid]
        return Experiment(name="slot-tiny", seeds=SEEDS, contenders=(base, *trials), search=search)

    return make


@contextlib.contextmanager
def no_engine() -> Iterator[Engine]:
    raise AssertionError("an engine was started although nothing is missing")
    yield


@pytest.mark.parametrize("search", [True, False])
def test_a_grid_of_scoring_knobs_trains_each_seed_once(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore, search: bool
) -> None:
    machine = engine()
    groups = run_experiment(experiment(search=search), store, machine.session)
    assert machine.counts == {Stage.TRAIN: 3, Stage.PACK: 3, Stage.SLIDING: 3, Stage.SLOT: 3 * len(GRID)}
    assert Counter(seed for stage, seed in machine.computed if stage is Stage.TRAIN) == dict.fromkeys(SEEDS, 1)
    assert [len(group.done) for group in groups] == [3] * 5


def test_the_groups_come_in_the_order_of_the_contenders_with_their_own_numbers(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore, measured: Callable[[PlannedStage], float]
) -> None:
    job = experiment()
    groups = run_experiment(job, store, engine().session)
    assert [group.overlay for group in groups] == [{}, *GRID]
    for group, contender in zip(groups, job.contenders, strict=True):
        values = {seed: measured(plan[-1]) for seed, plan in contender.plans.items()}
        assert group.bpb.values == values
        assert group.bpb.sd == pytest.approx(np.std(list(values.values()), ddof=1))
    assert len({group.bpb.mean for group in groups}) == 5


def test_a_second_run_starts_no_engine_and_gives_the_same_groups(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    first = run_experiment(experiment(), store, engine().session)
    assert run_experiment(experiment(), store, no_engine) == first


def test_one_config_more_computes_only_what_is_new(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    run_experiment(experiment(GRID[:2]), store, engine().session)
    machine = engine()
    run_experiment(experiment(GRID[:3]), store, machine.session)
    assert machine.counts == {Stage.SLOT: 3}


def test_a_search_gives_the_trials_to_the_search_library_and_the_base_beside_them(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    machine = engine()
    run_experiment(experiment(search=True), store, machine.session)
    assert machine.trials == [list(SEEDS)] * len(GRID)
    assert machine.seeds_started == len(SEEDS)


def test_a_plain_run_needs_no_search_library(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    machine = engine()
    run_experiment(experiment(search=False), store, machine.session)
    assert machine.trials == []
    assert machine.seeds_started == len(SEEDS) * (1 + len(GRID))


@pytest.mark.parametrize("search", [True, False])
def test_a_failed_seed_stays_in_view_with_its_error_and_spoils_no_other(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore, search: bool
) -> None:
    groups = run_experiment(experiment(search=search), store, engine({(Stage.TRAIN, 1337): NAN}).session)
    base, *trials = groups
    assert base.seeds[1337].status is SeedStatus.FAILED
    assert base.seeds[1337].error == "stage train of seed 1337 failed (bug): " + NAN.why
    assert sorted(base.bpb.values) == [42, 2024]
    for trial in trials:
        assert trial.seeds[1337].error == base.seeds[1337].error
        assert trial.seeds[42].status is SeedStatus.DONE


def test_a_trial_that_fails_is_told_apart_from_seeds_it_never_ran(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    groups = run_experiment(experiment(), store, engine({(Stage.SLOT, 42): NAN}).session)
    assert len(groups[0].done) == 3
    assert [trial.seeds[42].error for trial in groups[1:]] == [str(NAN)] * 4
    assert {trial.seeds[seed].status for trial in groups[1:] for seed in (1337, 2024)} == {SeedStatus.FAILED}
    assert all(trial.seeds[seed].error.startswith("not run: ") for trial in groups[1:] for seed in (1337, 2024))


def test_after_a_failure_the_same_experiment_goes_on_from_what_is_finished(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    run_experiment(experiment(GRID[:1]), store, engine({(Stage.PACK, 2024): NAN}).session)
    machine = engine()
    groups = run_experiment(experiment(GRID[:1]), store, machine.session)
    assert machine.counts == {Stage.PACK: 1, Stage.SLIDING: 1, Stage.SLOT: 1}
    assert [(len(group.done), len(group.failed)) for group in groups] == [(3, 0), (3, 0)]


def test_the_best_is_the_complete_group_with_the_lowest_mean(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    groups = run_experiment(experiment(), store, engine().session)
    means = [np.mean(list(group.bpb.values.values())) for group in groups]
    assert best(groups) is groups[int(np.argmin(means))]


def test_the_best_is_never_a_group_that_lost_a_seed(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore, finish: Callable[..., Any]
) -> None:
    job = experiment(search=False)
    for plan in job.base.plans.values():
        finish(store, plan[-1], {"val_bpb": 9.0})  # more than any of the trials
    groups = run_experiment(job, store, engine({(Stage.SLOT, 42): NAN}).session)
    assert [len(group.failed) for group in groups] == [0, 1, 1, 1, 1]
    assert max(group.bpb.mean for group in groups[1:]) < groups[0].bpb.mean
    assert best(groups) is groups[0]


def test_no_complete_group_is_an_error_with_the_seeds_errors(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    groups = run_experiment(experiment(), store, engine({(Stage.TRAIN, 1337): NAN}).session)
    with pytest.raises(CaddieError, match=r"(?s)no config finished all its seeds.*seed 1337 of base: .*loss is nan"):
        best(groups)
    with pytest.raises(CaddieError, match="no config finished"):
        best([])


def test_the_gang_is_checked_before_anything_runs(
    spec: RunSpec, corpus: Corpus, engine: MakeEngine, store: FolderStore
) -> None:
    machine = engine()

    def refuse(gang: GangShape) -> None:
        raise ClusterError(f"no node can hold {gang.ranks} ranks")

    machine.check = refuse
    contender = contend(spec.at({"gang.ranks": 8}), {}, (1,), corpus, Stage.SLOT, (Stage.SLOT,))
    with pytest.raises(ClusterError, match="8 ranks"):
        run_experiment(Experiment(name="x", seeds=(1,), contenders=(contender,)), store, machine.session)
    assert machine.computed == []
    assert machine.closed == machine.sessions == 1


def test_progress_is_watched_only_while_stages_run(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore
) -> None:
    seen: list[str] = []
    machine = engine()

    @contextlib.contextmanager
    def watching() -> Iterator[None]:
        seen.append(f"entered with {len(machine.computed)} stages")
        yield
        seen.append(f"left with {len(machine.computed)} stages")

    run_experiment(experiment(GRID[:1]), store, machine.session, watching)
    assert seen == ["entered with 0 stages", "left with 12 stages"]
    run_experiment(experiment(GRID[:1]), store, no_engine, watching)
    assert len(seen) == 2


def test_a_lookup_tells_what_is_there_and_starts_nothing(
    experiment: MakeExperiment, engine: MakeEngine, store: FolderStore, finish: Callable[..., Any]
) -> None:
    base: Contender = experiment().base
    for planned in base.plans[42]:
        finish(store, planned)
    finish(store, base.plans[1337][0])
    group: GroupResult = lookup(base, store)
    assert {seed: list(result.reports) for seed, result in group.seeds.items()} == {
        42: [Stage.TRAIN, Stage.PACK, Stage.SLIDING],
        1337: [Stage.TRAIN],
        2024: [],
    }
    assert [group.seeds[seed].status for seed in SEEDS] == [SeedStatus.DONE, SeedStatus.RUNNING, SeedStatus.RUNNING]


def test_a_lookup_counts_the_tries_of_each_stage(
    experiment: MakeExperiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    base: Contender = experiment().base
    began = {42: (1, 3, 2), 1337: (2, 0, 0), 2024: (0, 0, 0)}
    for seed, counts in began.items():
        for planned, count in zip(base.plans[seed], counts, strict=True):
            for _ in range(count - 1):
                store.begin(planned.key)
            if count:
                finish(store, planned)
    group = lookup(base, store)
    stages = (Stage.TRAIN, Stage.PACK, Stage.SLIDING)
    assert {seed: result.attempts for seed, result in group.seeds.items()} == {
        seed: dict(zip(stages, counts, strict=True)) for seed, counts in began.items()
    }


def test_an_experiment_lists_each_distinct_stage_once(experiment: MakeExperiment) -> None:
    stages = experiment().stages
    assert Counter(stages.values()) == Counter(
        {(stage, seed): 4 if stage is Stage.SLOT else 1 for stage in STAGES_OF_TINY for seed in SEEDS}
    )
