from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.overview import flat_params, plan_json
from service.spec import RunSpec

SEEDS = (1, 2)


def slot_experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    overlays = [{"score.slot.lr": lr} for lr in (0.1, 0.2, 0.3)]
    trials = [contend(spec.at(o), o, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,)) for o in overlays]
    return Experiment(name="x", seeds=SEEDS, contenders=(base, *trials))


def test_the_settings_of_two_specs_differ_exactly_where_an_overlay_set_them(spec: RunSpec) -> None:
    overlay = {"score.slot.lr": 0.5, "gang.threads": 3, "budget.eval_s": 7.0, "net.ln_scale": False}
    before, after = flat_params(spec), flat_params(spec.at(overlay))
    assert before.keys() == after.keys()
    assert {path: after[path] for path in after if after[path] != before[path]} == {
        path: str(value) for path, value in overlay.items()
    }


def test_a_scorer_that_is_off_is_listed_as_off(spec: RunSpec) -> None:
    params = flat_params(spec.at({"score.slot": None}))
    assert params["score.slot"] == "None"
    assert not [path for path in params if path.startswith("score.slot.")]


def test_a_plan_counts_each_distinct_stage_once_and_says_who_shares_it(
    spec: RunSpec, corpus: Corpus, store: FolderStore
) -> None:
    plan = plan_json(slot_experiment(spec, corpus), store)
    assert Counter(row["stage"] for row in plan["stages"]) == {
        "train": 2,
        "pack": 2,
        "score.sliding": 2,
        "score.slot": 6,
    }
    users = {(row["stage"], row["users"]) for row in plan["stages"]}
    assert users == {("train", 4), ("pack", 4), ("score.sliding", 1), ("score.slot", 1)}
    assert (plan["configs"], plan["seeds"], plan["to_run"], plan["cached"]) == (4, [1, 2], 12, 0)
    assert plan["shared"] == 2 * (3 + 3 * 3) - 12


def test_a_plan_knows_what_is_done(
    spec: RunSpec, corpus: Corpus, store: FolderStore, finish: Callable[..., Any]
) -> None:
    experiment = slot_experiment(spec, corpus)
    for planned in experiment.contenders[1].plans[2]:
        finish(store, planned)
    plan = plan_json(experiment, store)
    assert (plan["to_run"], plan["cached"]) == (9, 3)
    assert {(row["stage"], row["seed"]) for row in plan["stages"] if row["cached"]} == {
        ("train", 2),
        ("pack", 2),
        ("score.slot", 2),
    }
