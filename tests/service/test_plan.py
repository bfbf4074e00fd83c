from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.data.shards import Corpus
from model.report import write_json
from model.stages import Stage
from service import source
from service.adapters.seals import SEAL, write_seal
from service.adapters.store_fs import FolderStore
from service.errors import RecordError, SpecError
from service.experiment import Contender, Experiment, Race, Sampling, contend, lookup
from service.history import MADE_OF
from service.money import Price
from service.plan import ExperimentPlan, Row, plan_experiment
from service.racing import Racing
from service.recording import record_group
from service.reuse import check_reuse, reuse_of, reused_stages
from service.settings import read_settings
from service.spec import RunSpec
from service.stages import PlannedStage, Planner, plan_seed
from service.wiring import Wiring

SEEDS = (1, 2)
TRAIN, PACK, SLIDING, SLOT = Stage.TRAIN, Stage.PACK, Stage.SLIDING, Stage.SLOT
Finish = Callable[..., Any]
GRID = tuple({"score.slot.lr": lr} for lr in (0.1, 0.2, 0.3))


def slot_experiment(
    spec: RunSpec, corpus: Corpus, seeds: Sequence[int] = SEEDS, planner: Planner | None = None
) -> Experiment:
    base = contend(spec, {}, seeds, corpus, SLIDING, (SLIDING,), planner)
    trials = [contend(spec.at(o), o, seeds, corpus, SLOT, (SLOT,), planner) for o in GRID]
    return Experiment(name="x", seeds=tuple(seeds), contenders=(base, *trials))


def finish_all(finish: Finish, store: FolderStore, experiment: Experiment) -> None:
    stages = {p.key: p for c in experiment.contenders for plan in c.plans.values() for p in plan}
    for planned in stages.values():
        if store.find(planned.key) is None:
            finish(store, planned)


def row_of(plan: ExperimentPlan, stage: Stage, seed: int = 1, index: int = 0) -> Row:
    return [row for row in plan.rows.values() if (row.planned.stage, row.planned.seed) == (stage, seed)][index]


def note_gang(store: FolderStore, planned: PlannedStage, gang_s: float, company: int = 1) -> None:
    """Have a finished stage say what its gang took."""
    path = store.folder(planned.key) / MADE_OF
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"gang_s": gang_s, "company": company})
    write_seal(store.folder(planned.key))


def test_a_plan_counts_each_distinct_stage_once_and_says_who_shares_it(
    spec: RunSpec, corpus: Corpus, store: FolderStore
) -> None:
    plan = plan_experiment(slot_experiment(spec, corpus), store).to_json()
    assert Counter(row["stage"] for row in plan["stages"]) == {
        "train": 2,
        "pack": 2,
        "score.sliding": 2,
        "score.slot": 6,
    }
    users = {(row["stage"], row["users"]) for row in plan["stages"]}
    assert users == {("train", 4), ("pack", 4), ("score.sliding", 1), ("score.slot", 1)}
    assert (plan["configs"], plan["seeds"], plan["to_run"], plan["cached"]) == (4, [1, 2], 12, 0)
    assert plan["shared"] == 4, "two trainings and two packed artifacts"
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan


def test_a_plan_knows_what_is_done(spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish) -> None:
    experiment = slot_experiment(spec, corpus)
    reports = [finish(store, planned) for planned in experiment.contenders[1].plans[2]]
    plan = plan_experiment(experiment, store)
    done = {(row.planned.stage, row.planned.seed): row.because for row in plan.rows.values() if row.cached}
    assert done == {(Stage(r.stage), 2): f"finished, in {r.elapsed_s:.1f} s" for r in reports}
    assert len(plan.to_run) == 9


CHANGES: list[tuple[str, dict[str, Any], Stage, list[str]]] = [
    ("a setting", {"score.slot.lr": 0.012}, SLOT, ["score.slot.lr 0.008 -> 0.012"]),
    (
        "two settings",
        {"score.slot.lr": 0.012, "score.slot.loss_on": "scored"},
        SLOT,
        ["score.slot.lr 0.008 -> 0.012", "score.slot.loss_on context -> scored"],
    ),
    ("windows", {"score.windows.stride": 64}, SLIDING, ["score.windows.stride 192 -> 64"]),
    ("a nested setting", {"train.optim.embed_lr": 0.5}, TRAIN, ["train.optim.embed_lr 0.07 -> 0.5"]),
    ("a switch", {"net.ln_scale": False}, TRAIN, ["net.ln_scale true -> false"]),
    ("the gang", {"gang.threads": 2}, TRAIN, ["gang 1x1 cpu -> 1x2 cpu"]),
    ("the clock", {"train.minutes": 1.0}, TRAIN, ["train.minutes 0.0 -> 1.0", "hardware - -> H100-SXM"]),
]


@pytest.mark.parametrize(("changes", "stage", "said"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_missing_stage_says_what_differs_from_the_nearest_finished_one(
    spec: RunSpec,
    corpus: Corpus,
    store: FolderStore,
    finish: Finish,
    changes: dict[str, Any],
    stage: Stage,
    said: list[str],
) -> None:
    spec = replace(spec, gang=replace(spec.gang, hardware="H100-SXM")).at({"score.slot.lr": 0.008})
    finished = plan_seed(spec, 1, corpus)
    for planned in finished:
        finish(store, planned)
    contender = contend(spec.at(changes), {}, (1,), corpus, SLIDING, (SLIDING, SLOT))
    plan = plan_experiment(Experiment(name="x", seeds=(1,), contenders=(contender,)), store)
    row = row_of(plan, stage)
    nearest = next(planned.key for planned in finished if planned.stage is stage)
    assert (row.cached, row.nearest) == (False, nearest)
    assert row.because == f"differs from {nearest}: {', '.join(said)}"


def test_what_stands_on_a_stage_that_is_to_run_says_so_and_names_its_own_changes_too(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    finished = plan_seed(spec.at({"score.slot.lr": 0.008}), 1, corpus)
    for planned in finished:
        finish(store, planned)
    contender = contend(spec.at({"train.steps": 7, "score.slot.lr": 0.5}), {}, (1,), corpus, SLOT, (SLOT,))
    plan = plan_experiment(Experiment(name="x", seeds=(1,), contenders=(contender,)), store)
    train, pack, slot = contender.plans[1]
    assert row_of(plan, PACK).because == f"builds on {train.key}, which is to run"
    assert row_of(plan, SLOT).because == (
        f"differs from {finished[3].key}: score.slot.lr 0.008 -> 0.5; builds on {pack.key}, which is to run"
    )
    assert plan.rows[slot.key].nearest == finished[3].key


def test_a_seed_that_was_never_trained_is_named(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    empty = plan_experiment(slot_experiment(spec, corpus), store)
    assert row_of(empty, TRAIN).because == "train of seed 1 was never run"
    (train, *_) = plan_seed(spec, 1, corpus)
    finish(store, train)
    other = row_of(plan_experiment(slot_experiment(spec, corpus), store), TRAIN, seed=2)
    assert other.because == f"train of seed 2 was never run; differs from {train.key}: seed 1 -> 2"


def test_the_nearest_differs_in_the_fewest_parts_then_is_of_the_seed_then_in_the_fewest_settings(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    def slot_of(seed: int, **changes: float) -> PlannedStage:
        return plan_seed(spec.at({f"score.slot.{name}": value for name, value in changes.items()}), seed, corpus)[-1]

    others = {
        "two settings": slot_of(1, lr=0.1, steps=3),
        "one setting, another seed": slot_of(2, lr=0.1),
        "one setting": slot_of(1, lr=0.2),
        "two parts": plan_seed(spec.at({"score.slot.lr": 0.2, "score.windows.stride": 64}), 1, corpus)[-1],
    }
    contender = contend(spec.at({"score.slot.lr": 0.5}), {}, (1,), corpus, SLOT, (SLOT,))
    for name in ("two parts", "two settings", "one setting, another seed", "one setting"):
        finish(store, others[name])
        plan = plan_experiment(Experiment(name="x", seeds=(1,), contenders=(contender,)), store)
        expected = "two settings" if name == "one setting, another seed" else name
        assert row_of(plan, SLOT).nearest == others[expected].key, name


def test_a_changed_module_is_named(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = plan_seed(spec, 1, corpus)
    for planned in finished:
        finish(store, planned)
    said = source._meaning
    monkeypatch.setattr(source, "_meaning", lambda name, root: said(name, root) + "#" * (name == "model.net.gpt"))
    contender = contend(spec, {}, (1,), corpus, SLIDING, (SLIDING,))
    plan = plan_experiment(Experiment(name="x", seeds=(1,), contenders=(contender,)), store)
    assert row_of(plan, TRAIN).because == f"differs from {finished[0].key}: source of model/net/gpt.py changed"


def test_a_damaged_entry_is_said_to_be_damaged_and_set_aside(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    experiment = slot_experiment(spec, corpus)
    finish_all(finish, store, experiment)
    train = experiment.base.plans[1][0]
    (store.folder(train.key) / "output.bin").write_bytes(b"x")
    for _ in range(2):
        row = row_of(plan_experiment(experiment, store), TRAIN)
        assert not row.cached
        assert row.because.startswith(f"its entry was damaged and set aside as damaged/{train.key}.")


def test_an_entry_of_a_version_that_kept_no_parts_and_no_seal_still_counts_as_finished(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    experiment = slot_experiment(spec, corpus)
    finish_all(finish, store, experiment)
    for key in store.published():
        (store.folder(key) / MADE_OF).unlink()
        (store.folder(key) / SEAL).unlink()
    assert plan_experiment(experiment, store).to_run == []
    changed = plan_experiment(slot_experiment(spec.at({"train.steps": 3}), corpus), store)
    assert row_of(changed, TRAIN).because == "no train like it has finished here"
    (store.folder(experiment.base.plans[1][0].key) / MADE_OF).write_text("[", encoding="utf-8")
    assert len(plan_experiment(slot_experiment(spec.at({"train.steps": 3}), corpus), store).to_run) == 12


def test_without_anything_like_it_a_stage_is_counted_by_its_cap(
    spec: RunSpec, corpus: Corpus, store: FolderStore
) -> None:
    spec = spec.at({"gang.ranks": 4, "budget.train_s": 900, "budget.eval_s": 180})
    plan = plan_experiment(slot_experiment(spec, corpus), store, Price(node_usd_per_hour=16))
    assert plan.gpu_hours == pytest.approx(4 * (2 * 900 + 10 * 180) / 3600)
    data = plan.to_json()
    assert data["usd"] == pytest.approx(2 * plan.gpu_hours)
    assert data["by_caps"] == 12
    assert {row["expected_s"] for row in data["stages"] if row["stage"] == "train"} == {900}


def test_a_stage_is_expected_to_take_what_those_like_it_took_and_shares_a_gang_as_they_did(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    experiment = slot_experiment(spec, corpus, seeds=(1, 2, 3))
    base, first = experiment.contenders[:2]
    for seed, gang_s in ((1, 30.0), (2, 50.0)):
        for planned in (*base.plans[seed], first.plans[seed][-1]):
            finish(store, planned)
            # Of the three SLOT configs of a seed two ran together.
            note_gang(store, planned, gang_s, company=2 if planned.stage is SLOT else 1)
    plan = plan_experiment(experiment, store)
    train, slot = row_of(plan, TRAIN, seed=3), row_of(plan, SLOT, seed=3)
    assert (train.expected.seconds, train.expected.measured) == (40.0, 2)  # type: ignore[union-attr]
    assert (slot.expected.seconds, slot.expected.measured) == (20.0, 2)  # type: ignore[union-attr]
    assert plan.by_caps == 0
    assert row_of(plan, TRAIN, seed=1).gpu_hours == 0
    slower = slot_experiment(spec.at({"train.steps": 9}), corpus, seeds=(3,))
    assert row_of(plan_experiment(slower, store), TRAIN, seed=3).expected.measured == 0  # type: ignore[union-attr]


def test_a_forecast_is_the_mean_and_two_sd_of_the_recipe_s_finished_seeds(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    sizes, clocks = {4: 380_000.0, 5: 390_000.0, 6: 391_000.0}, {4: 10.0, 5: 11.0, 6: 12.5}
    for seed, size in sizes.items():
        train, pack, sliding, _ = plan_seed(spec, seed, corpus)
        finish(store, train, {"train_s": 500 + 60 * clocks[seed] / 10})
        finish(store, pack, {"model_bytes": size})
        finish(store, sliding, {"val_bpb": 2.0, "eval_s": clocks[seed]})
    other = plan_seed(spec.at({"pack.matrix_bits": 5}), 4, corpus)[1]
    finish(store, other, {"model_bytes": 1.0})
    experiment = slot_experiment(spec, corpus)
    plan = plan_experiment(experiment, store, code_bytes=lambda: 9_000)
    rows = {(row.cap, row.config): row for row in plan.forecasts}

    def high(values: dict[int, float]) -> float:
        return float(np.mean(list(values.values())) + 2 * np.std(list(values.values()), ddof=1))

    artifact = rows["artifact_bytes", "base"]
    assert (artifact.sample.n, artifact.configs, artifact.limit) == (3, 4, 400_000)
    assert artifact.high == pytest.approx(9_000 + high(sizes))
    assert artifact.fits is False
    train_s = {seed: 500 + 60 * clock / 10 for seed, clock in clocks.items()}
    assert rows["train_s", "base"].high == pytest.approx(high(train_s))
    assert rows["train_s", "base"].fits is True
    assert rows["eval_s", "base"].high == pytest.approx(high(clocks))
    (unknown,) = (row for row in plan.forecasts if not row.sample.n)
    assert (unknown.cap, unknown.configs, unknown.fits) == ("eval_s", 3, None)
    assert "no data" in str(unknown)
    assert "n=3" in str(artifact)
    assert "DOES NOT FIT" in str(artifact)


def test_a_record_s_evaluation_is_forecast_with_the_sliding_score_beside_its_headline(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    experiment = slot_experiment(spec, corpus)
    for seed, (plain_s, slot_s) in {1: (100.0, 200.0), 2: (110.0, 210.0)}.items():
        for planned in experiment.base.plans[seed]:
            finish(store, planned, {"val_bpb": 2.0, "eval_s": plain_s})
        finish(store, experiment.contenders[1].plans[seed][-1], {"val_bpb": 2.0, "eval_s": slot_s})
    rows = {(row.cap, row.config): row for row in plan_experiment(experiment, store, code_bytes=int).forecasts}
    assert rows["eval_s", "lr=0.1"].sample.values == {1: 300.0, 2: 320.0}


def test_a_plan_beyond_the_budget_is_refused_with_both_numbers_and_what_would_fit(
    spec: RunSpec, corpus: Corpus, store: FolderStore
) -> None:
    spec = spec.at({"budget.train_s": 3600, "budget.eval_s": 360})
    plan = plan_experiment(slot_experiment(spec, corpus, seeds=(1, 2, 3)), store)
    # A seed is an hour of training and 5 tenths of packing and scoring.
    assert plan.gpu_hours == pytest.approx(4.5)
    with pytest.raises(SpecError) as refused:
        plan.ledger(3.2)
    text = str(refused.value)
    assert "needs 4.5 GPU-h (11.25 USD), the budget is 3.2 GPU-h (8.00 USD)" in text
    assert "18 of 18 stages counted by their caps" in text
    assert "--seeds 1,2 (3 GPU-h (7.50 USD))" in text
    assert "the first" not in text, "one config alone needs 3.6"
    with pytest.raises(SpecError, match=r"it pays --seeds 1,2 .* or the first 3 configs \(4\.2 GPU-h"):
        plan.ledger(4.4)
    with pytest.raises(SpecError, match="it doesn't pay one seed or one config"):
        plan.ledger(0.5)
    assert plan.ledger(4.5).expected == {key: row.gpu_hours for key, row in plan.rows.items()}


def test_a_reused_training_stands_in_and_what_follows_builds_on_it(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    old = plan_seed(spec.at({"train.steps": 7}), 1, corpus)[0]
    finish(store, old)
    planner = Planner(corpus, reused_stages([old.key], store))
    experiment = slot_experiment(spec, corpus, planner=planner)
    check_reuse(planner, (plan for c in experiment.contenders for plan in c.plans.values()))
    own = plan_seed(spec, 1, corpus)
    for contender in experiment.contenders:
        train, pack, _ = contender.plans[1]
        assert (train.key, train.stands_for) == (old.key, own[0].key)
        assert pack.inputs == {"train": old.key}
        assert pack.key != own[1].key, "what it builds on is part of a key, so no result is mistaken for another's"
        assert not contender.plans[2][0].stands_for
    plan = plan_experiment(experiment, store)
    row = row_of(plan, TRAIN)
    assert row.cached
    assert row.because == f"reused for {own[0].key}, although train.steps 7 -> 200"
    assert row.to_json()["stands_for"] == own[0].key


REFUSED_REUSE: dict[str, tuple[Callable[[RunSpec, Corpus], PlannedStage], str]] = {
    "another seed": (lambda spec, corpus: plan_seed(spec, 9, corpus)[0], r"of seed 9, and the plan has train of seeds"),
    "a kind that is not planned": (
        lambda spec, corpus: replace(plan_seed(spec, 1, corpus)[2], stage=Stage.TTT, key="score-ttt-" + "a" * 16),
        r"no score\.ttt is planned; there is train, pack",
    ),
    "one for many": (
        lambda spec, corpus: plan_seed(spec.at({"score.slot.lr": 0.9}), 1, corpus)[3],
        r"3 different score\.slot of seed 1 are planned",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED_REUSE.values(), ids=REFUSED_REUSE)
def test_a_reuse_that_does_not_fit_is_refused_by_name(
    spec: RunSpec,
    corpus: Corpus,
    store: FolderStore,
    finish: Finish,
    make: Callable[[RunSpec, Corpus], PlannedStage],
    message: str,
) -> None:
    planned = make(spec, corpus)
    finish(store, planned, {"val_bpb": 2.0})
    planner = Planner(corpus, reused_stages([planned.key], store))
    experiment = slot_experiment(spec, corpus, planner=planner)
    with pytest.raises(SpecError, match=rf"--reuse {planned.key}: .*{message}"):
        check_reuse(planner, (plan for c in experiment.contenders for plan in c.plans.values()))


def test_two_stages_can_not_stand_in_for_one_nor_an_unfinished_one_for_any(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish
) -> None:
    one, two = (plan_seed(spec.at({"train.steps": n}), 1, corpus)[0] for n in (7, 8))
    finish(store, one)
    with pytest.raises(SpecError, match=f"--reuse {two.key}: no finished stage"):
        reused_stages([two.key], store)
    finish(store, two)
    with pytest.raises(SpecError, match=f"--reuse {two.key}: {one.key} is to be the train of seed 1 already"):
        reused_stages([one.key, two.key], store)
    assert reused_stages([one.key, one.key], store) == {(TRAIN, 1): one.key}


def test_no_record_is_made_of_reused_stages(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = plan_seed(spec.at({"train.steps": 7}), 1, corpus)[0]
    finish(store, old)
    planner = Planner(corpus, reused_stages([old.key], store))
    experiment = slot_experiment(spec, corpus, planner=planner)
    finish_all(finish, store, experiment)
    groups = [lookup(contender, store) for contender in experiment.contenders]
    own = plan_seed(spec, 1, corpus)[0]
    assert reuse_of(experiment.base.plans) == [f"{old.key} of seed 1 stands for {own.key}"]
    wiring = Wiring(read_settings({"CADDIE_HOME": os.fspath(store.stages.parent)}))
    with pytest.raises(RecordError, match=f"{old.key} of seed 1 stands for {own.key}; run it without --reuse"):
        record_group(groups[1], groups, wiring, baseline=spec)


FRESH = (7, 8, 9)


def raced(spec: RunSpec, corpus: Corpus) -> Experiment:
    """The slot experiment as a race; the last config trains for two hours, so that its confirming costs most."""
    planner, overlays = Planner(corpus), [{}, *GRID, {"score.slot.lr": 0.4, "train.minutes": 120.0}]

    def over(seeds: Sequence[int], both: bool) -> tuple[Contender, ...]:
        made = []
        for overlay in overlays:
            stage = SLOT if overlay else SLIDING
            scores = tuple(dict.fromkeys((SLIDING, stage))) if both else (stage,)
            made.append(contend(spec.at(overlay), overlay, seeds, corpus, stage, scores, planner))
        return tuple(made)

    race = Race(racing=Racing(confirm=FRESH), fresh=over(FRESH, both=True))
    return Experiment(name="x", seeds=SEEDS, contenders=over(SEEDS, both=False), race=race)


def test_a_race_s_plan_counts_the_confirming_of_one_config_the_costliest_and_says_so(
    spec: RunSpec, corpus: Corpus, store: FolderStore
) -> None:
    experiment = raced(spec.at({"budget.train_s": 3600, "budget.eval_s": 360}), corpus)
    assert experiment.race is not None
    plan = plan_experiment(experiment, store)
    again = {key: row for key, row in plan.rows.items() if row.confirms}
    costs = []
    for one in experiment.race.fresh:
        planned = [p for each in one.plans.values() for p in each]
        costs.append(sum(p.cap_s for p in planned) / 3600)
    assert sum(row.gpu_hours for row in again.values()) == pytest.approx(max(costs))
    alone = plan_experiment(replace(experiment, race=None), store)
    assert plan.gpu_hours == pytest.approx(alone.gpu_hours + max(costs))
    assert plan.rows.keys() - again.keys() == alone.rows.keys()
    assert {row.planned.seed for row in again.values()} == set(FRESH)
    assert all(row.because.startswith("confirms the winner on a fresh seed: ") for row in again.values())
    assert plan.to_json()["confirming"] == len(again) == 12
    # Whoever wins, the budget knows what its confirming is expected to take.
    every = {p.key for one in experiment.race.fresh for each in one.plans.values() for p in each}
    assert every <= plan.ledger(99.0).expected.keys()
    with pytest.raises(SpecError, match="it pays"):
        plan.ledger(plan.gpu_hours - 0.1)


def measure_race(finish: Finish, store: FolderStore, experiment: Experiment, fresh: bool) -> None:
    """Finish everything, with the second rate the best by far; and its confirming, if asked for."""
    for config, contender in enumerate(experiment.contenders):
        for seed, each in contender.plans.items():
            if config not in (1, 3, 4) or seed == SEEDS[0]:
                for planned in each:
                    score = {"val_bpb": 1.2 + 0.1 * abs(config - 2)} if planned.stage.startswith("score.") else None
                    if store.find(planned.key) is None:
                        finish(store, planned, score)
    if fresh and experiment.race:
        for each in experiment.race.fresh[2].plans.values():
            for planned in each:
                if store.find(planned.key) is None:
                    finish(store, planned)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_race_s_plan_leaves_out_who_was_stopped_and_knows_the_winner_when_it_is_decided(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Finish, fresh: bool
) -> None:
    experiment = raced(spec, corpus)
    measure_race(finish, store, experiment, fresh)
    assert experiment.race is not None
    plan = plan_experiment(experiment, store)
    winner = {p.key for each in experiment.race.fresh[2].plans.values() for p in each}
    assert {row.planned.key for row in plan.to_run} == (set() if fresh else winner)
    assert {key for key, row in plan.rows.items() if row.confirms} == winner


def sampled(spec: RunSpec, corpus: Corpus, trials: int, proposed: int) -> Experiment:
    """A search of ``trials`` SLOT rates, of which the first ``proposed`` are known."""
    planner = Planner(corpus)

    def propose(overlay: Mapping[str, Any]) -> Contender:
        return contend(spec.at(overlay), overlay, SEEDS, corpus, SLOT, (SLOT,), planner)

    def nobody() -> Any:
        raise AssertionError("a plan asks for no further proposal")

    base = contend(spec, {}, SEEDS, corpus, SLIDING, (SLIDING,), planner)
    rates = [{"score.slot.lr": 0.1 + 0.01 * i} for i in range(proposed)]
    sampling = Sampling(trials=trials, at_once=4, given=1, digest="", sampler=nobody, contend=propose)
    return Experiment(name="x", seeds=SEEDS, contenders=(base, *map(propose, rates)), sampling=sampling)


def test_trials_that_are_not_known_yet_cost_what_the_known_ones_take_on_the_average(
    spec: RunSpec, corpus: Corpus, store: FolderStore
) -> None:
    spec = spec.at({"budget.train_s": 3600, "budget.eval_s": 360})
    known, whole = sampled(spec, corpus, 10, 4), sampled(spec, corpus, 10, 10)
    plan = plan_experiment(known, store)
    assert plan.later == pytest.approx(6 * 2 * 0.1)
    assert plan.gpu_hours == pytest.approx(plan_experiment(whole, store).gpu_hours)
    assert plan.to_json()["not_proposed_yet"] == {"trials": 6, "gpu_hours": plan.later}
    assert plan.ledger(99.0).typical["score.slot"] == pytest.approx(0.1)
    # The base takes 2 x 1.2 hours, and so 2 trials are left of 2.85.
    with pytest.raises(SpecError, match=r"it pays --seeds 1 \(2\.2 GPU-h .* or --trials 2 \(2\.8 GPU-h"):
        plan.ledger(2.85)
