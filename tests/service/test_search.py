from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.notes_fs import NoteFolder
from service.adapters.optuna_search import OptunaSampler
from service.adapters.store_fs import FolderStore
from service.errors import FailureKind, SpecError, StageFailed
from service.experiment import Contender, Experiment, Sampling, contend
from service.money import Ledger
from service.notes import ended, grown, note_of
from service.ports import Engine, Sampler
from service.results import GroupResult
from service.search import known, run_search
from service.space import Range, Space
from service.spec import RunSpec
from service.stages import PlannedStage, Planner
from service.view import view_of

SEEDS = (1, 2)
AT_ONCE = 3
SPACE: Space = {"score.slot.lr": Range(low=0.001, high=0.1, log=True), "score.slot.steps": (2, 4, 8)}
NAN = StageFailed("score.slot", 1, FailureKind.BUG, "rank 0: not a number")
MakeExperiment = Callable[..., Experiment]
Machine = Callable[..., Any]


def measured(planned: PlannedStage) -> Mapping[str, float] | None:
    """SLOT's score: best at a rate of 0.01 and 4 steps, and a little apart from seed to seed."""
    if planned.stage is not Stage.SLOT:
        return None
    slot = planned.value("score.slot")
    return {"val_bpb": 1 + (math.log10(slot["lr"]) + 2) ** 2 + abs(slot["steps"] - 4) / 10 + planned.seed / 1000}


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> MakeExperiment:
    """``experiment(trials=8, space=..., sampler=...)``: the base, and trials of SLOT to be proposed."""

    def make(trials: int = 8, space: Space = SPACE, sampler: Callable[[], Sampler] | None = None) -> Experiment:
        planner = Planner(corpus)

        def propose(overlay: Mapping[str, Any]) -> Contender:
            return contend(spec.at(overlay), overlay, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,), planner)

        base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,), planner)
        sampling = Sampling(
            trials=trials,
            at_once=AT_ONCE,
            given=1,
            digest=f"{trials} of {space}",
            sampler=sampler or (lambda: OptunaSampler(space, 5)),
            contend=propose,
        )
        return Experiment(name="s", seeds=SEEDS, contenders=(base,), search=True, sampling=sampling)

    return make


@pytest.fixture
def machine(engine: Callable[..., Any]) -> Machine:
    """``machine(measure)``: an engine whose SLOT scores are :func:`measured`'s, and which notes each round."""

    def make(measure: Callable[[PlannedStage], Mapping[str, float] | None] = measured) -> Any:
        made = engine()
        made.measure, made.rounds = measure, []
        inner = made.run_trials

        def rounds(name: str, plans: Sequence[Any]) -> None:
            made.rounds.append(len(plans))
            inner(name, plans)

        made.run_trials = rounds
        return made

    return make


class Listed:
    """A sampler that proposes what it was given, and remembers what it was told."""

    def __init__(self, overlays: Sequence[dict[str, Any]]) -> None:
        self.left = list(overlays)
        self.told: list[list[float | None]] = []

    def ask(self) -> dict[str, Any]:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def tell(self, values: Sequence[float | None]) -> None:
        self.told.append(list(values))


@contextlib.contextmanager
def no_engine() -> Iterator[Engine]:
    raise AssertionError("an engine was started although nothing is missing")
    yield


def overlays(groups: Sequence[GroupResult]) -> list[dict[str, Any]]:
    return [dict(group.overlay) for group in groups]


def test_trials_are_run_round_by_round_and_beside_the_first_the_base(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    engine, said = machine(), list[str]()
    groups = run_search(experiment(), store, engine.session, tell=said.append)
    assert engine.rounds == [3, 3, 2]
    assert [len(group.done) for group in groups] == [2] * 9
    assert overlays(groups)[0] == {}
    assert len({str(overlay) for overlay in overlays(groups)}) == 9
    assert engine.counts[Stage.TRAIN] == len(SEEDS), "an eval-time search trains each seed once"
    assert engine.seeds_started == len(SEEDS)
    assert said[0].startswith("search: trials 1 to 3 of 8: lr=")
    assert [line[:26] for line in said] == [f"search: trials {a} to {b} of 8" for a, b in ((1, 3), (4, 6), (7, 8))]


def test_a_second_run_proposes_the_same_and_starts_no_engine(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    first = run_search(experiment(), store, machine().session)
    assert run_search(experiment(), store, no_engine) == first


@pytest.mark.parametrize("stages", range(1, 22, 3))
def test_a_driver_that_ended_anywhere_goes_on_with_the_same_trials_and_computes_nothing_twice(
    experiment: MakeExperiment, machine: Machine, store: FolderStore, stages: int, tmp_path: Any
) -> None:
    whole = machine()
    whole.store = elsewhere = FolderStore(tmp_path / "elsewhere")
    expected = run_search(experiment(), elsewhere, whole.session)
    killed = machine()

    def measure(planned: PlannedStage) -> Mapping[str, float] | None:
        if len(killed.computed) > stages:
            raise KeyboardInterrupt
        return measured(planned)

    killed.measure = measure
    with pytest.raises(KeyboardInterrupt):
        run_search(experiment(), store, killed.session)
    again = machine()
    groups = run_search(experiment(), store, again.session)
    assert overlays(groups) == overlays(expected)
    assert [group.bpb.values for group in groups] == [group.bpb.values for group in expected]
    # The one that was broken off is begun again; all others once.
    assert len(killed.computed) - 1 + len(again.computed) == len(whole.computed)


def test_more_trials_go_on_from_fewer(experiment: MakeExperiment, machine: Machine, store: FolderStore) -> None:
    six = run_search(experiment(trials=6), store, machine().session)
    engine = machine()
    nine = run_search(experiment(trials=9), store, engine.session)
    assert overlays(nine)[: len(six)] == overlays(six)
    assert engine.rounds == [3]


def test_another_result_leads_to_other_proposals(
    experiment: MakeExperiment, machine: Machine, store: FolderStore, tmp_path: Any
) -> None:
    def upside_down(planned: PlannedStage) -> Mapping[str, float] | None:
        metrics = measured(planned)
        return {"val_bpb": 5 - metrics["val_bpb"]} if metrics else None

    one = run_search(experiment(trials=15), store, machine().session)
    other = machine(upside_down)
    other.store = FolderStore(tmp_path / "elsewhere")
    another = run_search(experiment(trials=15), other.store, other.session)
    assert overlays(one)[: 1 + AT_ONCE] == overlays(another)[: 1 + AT_ONCE]
    assert overlays(one) != overlays(another)


def test_what_failed_is_told_as_failed_and_what_leaks_too_once_an_honest_one_is_known(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    listed = Listed([{"score.slot.lr": lr} for lr in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])

    def measure(planned: PlannedStage) -> Mapping[str, float] | None:
        rate = planned.value("score.slot")["lr"] if planned.stage is Stage.SLOT else 0
        return {"val_bpb": rate, "exposed": float(rate in (0.2, 0.4))} if rate else None

    engine = machine(measure)
    inner = engine._chain

    def chain(plan: Any) -> Any:
        engine.failing = {(Stage.SLOT, 2): NAN} if plan[-1].value("score.slot")["lr"] == 0.3 else {}
        return inner(plan)

    engine._chain = chain
    groups = run_search(experiment(trials=6, sampler=lambda: listed), store, engine.session)
    assert listed.told == [[0.1, None, None], [None, 0.5, 0.6]]
    assert groups[3].seeds[2].error == str(NAN)
    assert [len(group.done) for group in groups] == [2, 2, 2, 1, 2, 2, 2]


def test_where_every_score_leaks_they_are_compared_with_each_other(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    listed = Listed([{"score.slot.lr": lr} for lr in (0.1, 0.2, 0.3)])
    engine = machine(lambda p: {"val_bpb": 1.5, "exposed": 1.0} if p.stage is Stage.SLOT else None)
    run_search(experiment(trials=3, sampler=lambda: listed), store, engine.session)
    assert listed.told == [[1.5] * 3]


def test_a_repeat_is_told_again_and_is_no_trial_and_a_space_that_is_used_up_ends_the_search(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    a, b, wrong = {"score.slot.lr": 0.1}, {"score.slot.lr": 0.2}, {"score.slot.lr": -1.0}
    listed, said = Listed([a, a, wrong, b, {"score.slot.lr": 0.3}, a, {"score.slot.lr": 0.4}, b]), list[str]()

    def measure(planned: PlannedStage) -> Mapping[str, float] | None:
        return {"val_bpb": planned.value("score.slot")["lr"]} if planned.stage is Stage.SLOT else None

    groups = run_search(experiment(sampler=lambda: listed), store, machine(measure).session, tell=said.append)
    assert [overlay.get("score.slot.lr") for overlay in overlays(groups)] == [None, 0.1, 0.2, 0.3, 0.4]
    assert listed.told[0] == [0.1, 0.1, None, 0.2, 0.3]
    assert listed.told[1][:3] == [0.1, 0.4, 0.2]
    assert said[-1] == "search: it ends after 4 of 8 trials: nothing else is proposed, the space seems to hold no more"


def test_a_small_space_is_tried_whole(experiment: MakeExperiment, machine: Machine, store: FolderStore) -> None:
    space: Space = {"score.slot.lr": (0.1, 0.2), "score.slot.steps": (2, 4, 8)}
    groups = run_search(experiment(trials=6, space=space), store, machine().session)
    assert len({str(overlay) for overlay in overlays(groups)}) == 7


def test_a_round_that_failed_whole_ends_the_search(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    engine, said = machine(), list[str]()
    engine.failing = {(Stage.SLOT, 1): NAN}
    groups = run_search(experiment(), store, engine.session, tell=said.append)
    assert engine.rounds == [3]
    assert len(groups) == 1 + AT_ONCE
    assert len(groups[0].done) == 2
    assert {group.seeds[1].error for group in groups[1:]} == {str(NAN)}
    assert said[-1].endswith("3 of 8 trials: all 3 trials of the last round failed, and nothing is learned from that")


def test_a_budget_that_refused_a_stage_ends_the_search_before_more_is_proposed(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    engine, said = machine(), list[str]()
    engine.ledger = Ledger(limit=1.0, refused={"score-slot-0": 2.0})
    groups = run_search(experiment(), store, engine.session, tell=said.append)
    assert len(groups) == 1 + AT_ONCE
    assert said[-1] == "search: it ends after 3 of 8 trials: the budget doesn't pay more"
    engine.ledger = None
    assert len(run_search(experiment(), store, engine.session)) == 9


def test_what_is_known_before_a_run_is_the_finished_rounds_and_the_next_one(
    experiment: MakeExperiment, machine: Machine, store: FolderStore
) -> None:
    assert known(experiment(), store).to_propose == 5
    assert len(known(experiment(), store).contenders) == 1 + AT_ONCE
    groups = run_search(experiment(trials=3), store, machine().session)
    more = known(experiment(trials=8), store)
    assert len(more.contenders) == 1 + 2 * AT_ONCE
    assert [dict(one.overlay) for one in more.contenders[: len(groups)]] == overlays(groups)


def test_a_note_grows_with_the_proposals_under_one_name_and_a_view_shows_them_all(
    experiment: MakeExperiment, machine: Machine, store: FolderStore, tmp_path: Any
) -> None:
    folder, asked = NoteFolder(tmp_path / "home"), experiment()
    note = note_of(known(asked, store), git_sha="a", git_dirty=False, started_s=1.0)
    seen: list[int] = []

    @contextlib.contextmanager
    def watching(_: Experiment) -> Iterator[Callable[[Experiment], None]]:
        def show(now: Experiment) -> None:
            folder.write(grown(note, now))
            (read,), _ = folder.read()
            seen.append(len(read.configs))

        yield show

    with folder.hold(note):
        groups = run_search(asked, store, machine().session, watching)
    assert seen == [7, 9, 9]
    folder.write(ended(note, groups))
    (last,), _ = folder.read()
    assert [config.title for config in last.configs] == [group.title for group in groups]
    assert last == note_of(known(asked, store), git_sha="a", git_dirty=False, started_s=1.0)
    view = view_of([last], store, lambda _: False)
    assert {config.run.name: config.run.metrics["val_bpb_mean"] for config in view.configs} == {
        group.title: group.bpb.mean for group in groups
    }
    other = note_of(known(experiment(trials=9), store), git_sha="a", git_dirty=False, started_s=1.0)
    assert other.id != note.id


def test_a_proposal_that_never_fits_is_no_endless_loop(
    experiment: MakeExperiment, machine: Machine, store: FolderStore, spec: RunSpec
) -> None:
    wrong = {"score.slot.lr": -1.0}
    with pytest.raises(SpecError):
        spec.at(wrong)
    groups = run_search(experiment(sampler=lambda: Listed([wrong])), store, machine().session)
    assert overlays(groups) == [{}]
