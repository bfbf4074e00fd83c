from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.cli.show import group_status, groups_json, race_json
from service.contest import run_race
from service.errors import FailureKind, StageFailed
from service.experiment import Experiment, Race, contend, run_experiment
from service.ports import Engine
from service.racing import Racing
from service.results import GroupResult, SeedStatus
from service.spec import RunSpec

SEEDS, FRESH = (42, 1337, 2024), (7, 8)
RATES = (0.004, 0.008, 0.012, 0.016)
NAN = StageFailed("train", 1337, FailureKind.BUG, "rank 0: the training loss is nan at step 3")
Finish = Callable[..., Any]
Metrics = Callable[[int, float, int], Mapping[str, float]]


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    """Four SLOT learning rates and the base, on the same artifacts."""
    overlays: list[dict[str, Any]] = [{}, *({"score.slot.lr": rate} for rate in RATES)]

    def over(seeds: tuple[int, ...], both: bool) -> list[Any]:
        made = []
        for overlay in overlays:
            stage = Stage.SLOT if overlay else Stage.SLIDING
            scores = tuple(dict.fromkeys((Stage.SLIDING, stage))) if both else (stage,)
            made.append(contend(spec.at(overlay), overlay, seeds, corpus, stage, scores))
        return made

    race = Race(racing=Racing(confirm=FRESH), fresh=tuple(over(FRESH, both=True)))
    return Experiment(name="slot-tiny", seeds=SEEDS, contenders=tuple(over(SEEDS, both=False)), search=True, race=race)


def measure(config: int, seed: int) -> float:
    """The seed's own level, and a config's gain: the second rate is the best, the third close behind."""
    return 1.1 + seed % 7 / 1000 + (0.0, 0.004, -0.002, -0.0019, 0.03)[config] + (seed * (config + 3) % 5) * 1e-5


@pytest.fixture
def machine(engine: Callable[..., Any], experiment: Experiment, finish: Finish) -> Callable[..., Any]:
    """``machine(failing)``: an engine whose scores are :func:`measure`'s, and which notes what a round asked for."""
    numbers = {}
    for contenders in (experiment.contenders, experiment.race.fresh if experiment.race else ()):
        for config, contender in enumerate(contenders):
            for seed, plan in contender.plans.items():
                headline = next(p for p in plan if p.stage is contender.headline)
                numbers[headline.key] = measure(config, seed)

    def make(failing: Mapping[Any, Any] | None = None) -> Any:
        made = engine(failing)
        inner = made._chain
        made.rounds = []

        def chain(plan: Any) -> Any:
            missing = [p for p in plan if made.store.find(p.key) is None]
            done = inner(plan[:-1]) if len(plan) > 1 else None
            if done is not None and done.error:
                return replace(done, plan=plan)
            last = plan[-1]
            if last in missing and (last.stage, last.seed) not in made.failing:
                made.computed.append((last.stage, last.seed))
                finish(made.store, last, {"val_bpb": numbers[last.key]})
            return inner(plan)

        run_trials = made.run_trials

        def rounds(name: str, plans: Any) -> None:
            made.rounds.append(sorted((trial[0][0].seed, len(trial)) for trial in plans))
            run_trials(name, plans)

        made._chain, made.run_trials = chain, rounds
        return made

    return make


@contextlib.contextmanager
def no_engine() -> Iterator[Engine]:
    raise AssertionError("an engine was started although nothing is missing")
    yield


def test_a_race_asks_round_by_round_and_stops_who_cannot_win(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    engine = machine()
    groups = run_race(experiment, store, engine.session)
    assert engine.rounds[0] == [(42, 1)] * 4
    assert [[seed for seed, _ in asked] for asked in engine.rounds[1:]] == [[1337], [2024]]
    assert [len(group.done) for group in groups] == [3, 1, 3, 1, 1]
    assert [bool(group.stopped) for group in groups] == [False, True, False, True, True]
    assert groups[4].stopped == "after 1 of 3 seeds: can't win any more"
    assert group_status(groups[4]) == "stopped after 1 of 3 seeds: can't win any more"
    assert groups[3].stopped == "after 1 of 3 seeds: not in the best 1, for whom runs are left"
    assert [result.status for result in groups[4].seeds.values()] == [
        SeedStatus.DONE,
        SeedStatus.STOPPED,
        SeedStatus.STOPPED,
    ]
    assert not any(group.failed for group in groups)
    assert engine.counts[Stage.SLOT] == 4 + 2 + len(FRESH)


def test_the_winner_is_confirmed_by_fresh_seeds_that_took_no_part_in_choosing(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    groups = run_race(experiment, store, machine().session)
    (winner,) = [group for group in groups if group.won]
    assert winner is groups[2]
    assert winner.confirmed is not None
    assert winner.confirmed.bpb.values == {seed: measure(2, seed) for seed in FRESH}
    assert winner.confirmed.spec == winner.spec
    race = race_json(experiment, groups)
    assert race["seeds_that_chose"] == list(SEEDS)
    assert race["seeds_that_confirmed"] == list(FRESH)
    assert race["confirmed"]["mean_bpb"] == pytest.approx(sum(measure(2, seed) for seed in FRESH) / 2)
    assert (race["seed_runs"], race["seed_runs_of_the_grid"]) == (6, 12)
    assert [row["status"] for row in groups_json(groups)][:3] == [
        "complete",
        "stopped after 1 of 3 seeds: can't win any more",
        "complete",
    ]


def test_a_second_run_starts_no_engine_and_decides_the_same(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    first = run_race(experiment, store, machine().session)
    assert run_race(experiment, store, no_engine) == first


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_driver_that_ended_in_between_goes_on_and_decides_the_same(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore, rounds: int
) -> None:
    engine = machine()
    inner = engine.run_trials

    def ends(name: str, plans: Any) -> None:
        inner(name, plans)
        if len(engine.rounds) == rounds:
            raise KeyboardInterrupt

    engine.run_trials = ends
    with pytest.raises(KeyboardInterrupt):
        run_race(experiment, store, engine.session)
    again = machine()
    groups = run_race(experiment, store, again.session)
    assert [len(group.done) for group in groups] == [3, 1, 3, 1, 1]
    assert not set(engine.computed) & {done for done in again.computed if done[0] is Stage.TRAIN}
    assert engine.counts[Stage.SLOT] + again.counts[Stage.SLOT] == 4 + 2 + len(FRESH)


def test_after_a_whole_grid_a_race_runs_only_what_confirms(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    run_experiment(experiment, store, machine().session)
    engine = machine()
    groups = run_race(experiment, store, engine.session)
    assert engine.rounds == []
    assert engine.counts[Stage.SLOT] == len(FRESH)
    assert [group.stopped for group in groups] == [""] * 5
    assert groups[2].won


def test_who_fails_is_out_and_the_others_race_on(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    groups = run_race(experiment, store, machine({(Stage.TRAIN, 1337): NAN}).session)
    assert not any(group.won for group in groups)
    assert groups[2].seeds[1337].error == str(NAN)
    assert groups[2].seeds[2024].error.startswith("not run: ")
    assert [bool(group.stopped) for group in groups] == [False, True, False, True, True]


def test_a_score_that_leaks_stops_no_honest_one(
    experiment: Experiment, store: FolderStore, engine: Callable[..., Any], finish: Finish
) -> None:
    for config, contender in enumerate(experiment.contenders):
        for seed, plan in contender.plans.items():
            leaks = config == 4
            finish(store, plan[-1], {"val_bpb": 0.9 if leaks else measure(config, seed), "exposed": float(leaks)})
    for planned in experiment.race.fresh[2].plans.values() if experiment.race else ():
        for one in planned:
            if store.find(one.key) is None:
                finish(store, one, {"val_bpb": 1.0} if one.stage.startswith("score.") else None)
    groups: tuple[GroupResult, ...] = run_race(experiment, store, engine().session)
    assert groups[4].leaks
    assert groups[4].bpb.mean < groups[2].bpb.mean
    assert groups[4].stopped == ""
    assert [group.won for group in groups] == [False, False, True, False, False]


def test_progress_is_watched_with_the_fresh_seeds_as_an_experiment_of_their_own(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    @contextlib.contextmanager
    def watching(what: Experiment = experiment) -> Iterator[None]:
        seen.append((what.name, what.seeds))
        yield

    run_race(experiment, store, machine().session, watching)
    assert seen == [("slot-tiny", SEEDS), ("slot-tiny-confirm", FRESH)]


def test_without_confirming_seeds_nothing_is_confirmed(
    experiment: Experiment, machine: Callable[..., Any], store: FolderStore
) -> None:
    engine = machine()
    race = Race(racing=Racing(confirm=()))
    groups = run_race(replace(experiment, race=race), store, engine.session)
    assert groups[2].won
    assert groups[2].confirmed is None
    assert race_json(replace(experiment, race=race), groups)["seeds_that_confirmed"] == []
