from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.adapt.ttt import Ttt
from model.overlay import field_at, parse_value
from model.stages import Stage
from service.errors import CaddieError, SpecError
from service.overview import flat_params
from service.space import Range, Search
from service.spec import Budget, GangShape, RunSpec, SweepSpec, parse_changes, parse_seeds, slug
from sweeps.recipes.tiny import tiny

PATHS = sorted(flat_params(tiny()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("net.layers", 5),
        ("train.optim.matrix_lr", 0.5),
        ("score.slot.loss_on", "scored"),
        ("score.slot", None),
        ("gang.ranks", 2),
        ("gang.hardware", "H100-SXM"),
        ("budget.artifact_bytes", 16_000_000),
        ("budget.slack_s", 7.0),
        ("corpus", "elsewhere.jsonl"),
    ],
)
def test_an_overlay_sets_its_path_and_leaves_the_base_and_everything_else_alone(
    spec: RunSpec, path: str, value: Any
) -> None:
    changed = spec.at({path: value})
    where: Any = changed if path.split(".")[0] in ("gang", "budget", "corpus") else changed.config
    assert field_at(where, path) == value
    assert spec == tiny()
    old: Any = spec if where is changed else spec.config
    assert changed.at({path: field_at(old, path)}) == spec if value is not None else changed != spec


def test_an_overlay_of_config_gang_and_budget_at_once_sets_all_three(spec: RunSpec) -> None:
    changed = spec.at({"gang.threads": 3, "net.dim": 48, "budget.eval_s": 5})
    assert changed == replace(
        spec,
        config=replace(spec.config, net=replace(spec.config.net, dim=48)),
        gang=replace(spec.gang, threads=3),
        budget=replace(spec.budget, eval_s=5.0),
    )


def test_no_overlay_gives_an_equal_spec(spec: RunSpec) -> None:
    assert spec.at({}) == spec


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("net.dims", ["net.dims", "net.dim", "net.layers"]),
        ("gang.rank", ["gang.rank", "gang.ranks", "gang.threads"]),
        ("budget.bytes", ["budget.bytes", "budget.artifact_bytes", "budget.train_s"]),
        ("score.slot.rate", ["score.slot.rate", "score.slot.lr"]),
        ("optim.lr", ["'optim'", "train", "net", "pack", "score"]),
        ("gangs.ranks", ["'gangs'", "gang", "budget"]),
        ("train.steps.more", ["train.steps is a single value"]),
        ("score.slot", ["score.slot.lr", "score.slot.steps"]),
    ],
)
def test_an_unknown_path_is_refused_by_name_with_what_exists(spec: RunSpec, path: str, names: list[str]) -> None:
    with pytest.raises(SpecError) as refused:
        spec.at({path: 1})
    message = str(refused.value)
    assert [name for name in names if name not in message.replace("'gangs.ranks'", "")] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"train.steps": 1.5},
        {"train.steps": "many"},
        {"net.dim": 97},
        {"net.qk_gain": float("nan")},
        {"score.slot.loss_on": "both"},
        {"gang.ranks": 0},
        {"gang.device": "tpu"},
        {"budget.train_s": 0},
        {"budget.artifact_bytes": 1e6},
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_path_and_value(spec: RunSpec, changes: dict[str, Any]) -> None:
    (path,) = changes
    with pytest.raises(SpecError) as refused:
        spec.at(changes)
    assert path.rsplit(".", 1)[-1] in str(refused.value)
    assert str(changes[path]) in str(refused.value)
    assert isinstance(refused.value, CaddieError)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("path", PATHS)
def test_every_listed_setting_can_be_set_to_what_it_is(spec: RunSpec, path: str) -> None:
    """The listing is what a record and MLflow show, so each line must be good for ``--set``."""
    assert spec.at({path: parse_value(flat_params(spec)[path])}) == spec


def test_names_and_notes_never_count_in_the_digest(spec: RunSpec) -> None:
    assert replace(spec, name="another", notes="a long story").digest() == spec.digest()
    assert replace(spec, name="another") != spec


@pytest.mark.parametrize("path", [path for path in PATHS if flat_params(tiny())[path] != "None"])
def test_any_overlay_changes_the_digest_and_taking_it_back_restores_it(spec: RunSpec, path: str) -> None:
    if path == "train.order_seed":
        spec = spec.at({"train.order": "shuffled"})  # which asks for one
    where: Any = spec if path.split(".")[0] in ("gang", "budget", "corpus") else spec.config
    old = field_at(where, path)
    changed = first_accepted(spec, path, candidates(old))
    assert changed.digest() != spec.digest()
    assert changed.at({path: old}).digest() == spec.digest()


def candidates(old: Any) -> list[Any]:
    """Other values of the kind of ``old``; not every one fits every field."""
    if isinstance(old, bool):
        return [not old]
    if isinstance(old, str):
        return [
            "elsewhere.jsonl",
            "scored",
            "lzma",
            "cuda",
            "batch",
            "window",
            "lbfgs",
            "adamw",
            "constant",
            "uniform",
            "shuffled",
        ]
    return [old * 2, old + 1, old * 3, old - 1, old / 2, old + 0.5]


def first_accepted(spec: RunSpec, path: str, values: list[Any]) -> RunSpec:
    for value in values:
        with contextlib.suppress(SpecError):
            changed = spec.at({path: value})
            if changed != spec:
                return changed
    raise AssertionError(f"no value fits {path}")


def test_a_digest_is_twelve_hex_digits(spec: RunSpec) -> None:
    assert len(spec.digest()) == 12
    assert int(spec.digest(), 16) >= 0


def test_the_scores_are_those_that_are_on(spec: RunSpec) -> None:
    assert spec.scores == (Stage.SLIDING, Stage.SLOT)
    assert spec.at({"score.slot": None}).scores == (Stage.SLIDING,)
    assert spec.at({"score.sliding": None}).scores == (Stage.SLOT,)
    learning = replace(spec, config=replace(spec.config, score=replace(spec.config.score, ttt=Ttt())))
    assert learning.scores == (Stage.SLIDING, Stage.TTT, Stage.SLOT)


def test_a_rank_reserves_its_threads_and_a_gpu_only_on_cuda() -> None:
    assert GangShape(ranks=8, threads=4, device="cuda").bundle == {"CPU": 4.0, "GPU": 1.0}
    assert GangShape(ranks=2, threads=3, device="cpu").bundle == {"CPU": 3.0}


@pytest.mark.parametrize("name", ["artifact_bytes", "train_s", "eval_s", "slack_s"])
def test_a_cap_of_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Budget(**{name: 0})


def test_changes_are_words_with_an_equals_sign() -> None:
    words = ["score.slot.lr=0.012", "train.steps=7", "net.ln_scale=false", "gang.hardware=a=b", "score.slot=none"]
    assert parse_changes(words) == {
        "score.slot.lr": 0.012,
        "train.steps": 7,
        "net.ln_scale": False,
        "gang.hardware": "a=b",
        "score.slot": None,
    }
    assert parse_changes([]) == {}


@pytest.mark.parametrize("word", ["train.steps", "=3", ""])
def test_a_change_without_path_or_value_is_refused_with_an_example(word: str) -> None:
    with pytest.raises(SpecError, match="PATH=VALUE") as refused:
        parse_changes([word])
    assert repr(word) in str(refused.value)


def test_a_path_given_twice_is_refused_with_both_values() -> None:
    with pytest.raises(SpecError, match=r"train\.steps is given twice: 3 and '4'"):
        parse_changes(["train.steps=3", "train.steps=4"])


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6, unique=True))
def test_seeds_keep_their_order_and_value(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == tuple(seeds)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1.5", "1,2,", "42;1337", "1e3"])
def test_junk_is_no_seed_list(text: str) -> None:
    with pytest.raises(SpecError, match="whole numbers with commas"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["-1", "1,-2", str(2**63)])
def test_a_seed_outside_the_generator_s_range_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="from 0 to"):
        parse_seeds(text)


def test_a_repeated_seed_is_no_new_evidence() -> None:
    with pytest.raises(SpecError, match="1337 is given twice"):
        parse_seeds("42,1337,7,1337")


GRID = SweepSpec(name="grid", recipe="tiny", space={"score.slot.lr": (0.004, 0.012), "score.slot.steps": (4, 12, 16)})


def test_trials_are_the_product_in_the_order_of_the_axes() -> None:
    expected = [{"score.slot.lr": lr, "score.slot.steps": n} for lr in (0.004, 0.012) for n in (4, 12, 16)]
    assert GRID.grid() == expected


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_every_combination_is_tried_once(axes: list[list[int]]) -> None:
    space = {f"net.a{i}": tuple(values) for i, values in enumerate(axes)}
    trials = SweepSpec(name="s", recipe="r", space=space).grid()
    assert {tuple(trial.values()) for trial in trials} == set(itertools.product(*axes))
    count = 1
    for values in axes:
        count *= len(values)
    assert len(trials) == count


def test_a_sweep_that_fits_is_accepted(spec: RunSpec) -> None:
    GRID.check(spec)


@pytest.mark.parametrize(
    ("space", "match"),
    [
        ({"score.slot.rate": (1,)}, r"score\.slot\.rate.*score\.slot\.lr"),
        ({"score.slot.lr": ()}, r"score\.slot\.lr has no values"),
        ({"score.slot.steps": (4, "many")}, r"score\.slot\.steps must be of type int, got 'many'"),
        ({"score.slot.lr": (0.1, -0.1)}, r"-0\.1"),
        ({"score.windows.seq_len": (256, 512), "score.windows.stride": (128, 512)}, "stride"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_anything_runs(
    spec: RunSpec, space: dict[str, tuple[Any, ...]], match: str
) -> None:
    with pytest.raises(SpecError, match=match):
        replace(GRID, space=space).check(spec)


def test_axes_that_only_fit_together_are_accepted(spec: RunSpec) -> None:
    replace(GRID, space={"score.windows.seq_len": (64,), "score.windows.stride": (16, 32)}).check(spec)


@pytest.mark.parametrize("objective", [Stage.SLOT, Stage.SLIDING])
def test_an_objective_that_the_recipe_turns_off_is_refused(spec: RunSpec, objective: Stage) -> None:
    sweep = SweepSpec(name="s", recipe="tiny", space={"train.steps": (3, 4)}, objective=objective)
    sweep.check(spec)
    with pytest.raises(SpecError, match=f"{objective} is off in recipe tiny"):
        sweep.check(spec.at({str(objective): None}))


def test_an_axis_of_the_command_line_replaces_or_adds_and_the_sweep_itself_stays() -> None:
    changed = GRID.with_axes(["score.slot.lr=0.5,1", "score.slot.loss_on=context,scored"])
    assert changed.space == {
        "score.slot.lr": (0.5, 1),
        "score.slot.steps": (4, 12, 16),
        "score.slot.loss_on": ("context", "scored"),
    }
    assert len(changed.grid()) == 12
    assert GRID.space == {"score.slot.lr": (0.004, 0.012), "score.slot.steps": (4, 12, 16)}


@pytest.mark.parametrize("word", ["score.slot.lr", "score.slot.lr=", "score.slot.lr=,", "=1,2"])
def test_an_axis_without_path_or_values_is_refused_with_an_example(word: str) -> None:
    with pytest.raises(SpecError, match="PATH=V1,V2"):
        GRID.with_axes([word])


@pytest.mark.parametrize("values", ["1,2,1", "1,1.0", "0.5,5e-1"])
def test_a_value_twice_on_an_axis_is_refused(values: str) -> None:
    with pytest.raises(SpecError, match="given twice"):
        GRID.with_axes([f"score.slot.lr={values}"])


def test_a_slug_is_short_and_says_what_differs() -> None:
    assert slug({"score.slot.lr": 0.008, "score.slot.steps": 8}) == "lr=0.008 steps=8"
    assert slug({}) == "base"
    assert len({slug(trial) for trial in GRID.grid()}) == len(GRID.grid())


def test_further_trials_follow_the_product_each_with_its_own_judge(spec: RunSpec) -> None:
    sweep = SweepSpec(
        name="s",
        recipe="r",
        space={"score.slot.lr": (0.1, 0.2)},
        also=((Stage.SLIDING, {"score.windows.stride": 64}), (Stage.SLOT, {"score.slot.loss_on": "scored"})),
    )
    sweep.check(spec)
    assert sweep.trials() == [
        (Stage.SLOT, {"score.slot.lr": 0.1}),
        (Stage.SLOT, {"score.slot.lr": 0.2}),
        (Stage.SLIDING, {"score.windows.stride": 64}),
        (Stage.SLOT, {"score.slot.loss_on": "scored"}),
    ]


def test_a_further_trial_is_checked_like_the_others(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match=r"score\.slot\.rate"):
        SweepSpec(name="s", recipe="r", also=((Stage.SLOT, {"score.slot.rate": 1.0}),)).check(spec)
    with pytest.raises(SpecError, match=r"score\.ttt is off"):
        SweepSpec(name="s", recipe="r", also=((Stage.TTT, {}),)).check(spec)
    with pytest.raises(SpecError, match="has no trials"):
        SweepSpec(name="s", recipe="r").check(spec)


def test_drawn_trials_are_a_part_of_the_product_and_the_same_ones_each_time() -> None:
    space = {"score.slot.lr": (0.1, 0.2, 0.3), "score.slot.steps": (1, 2, 3, 4)}
    whole = SweepSpec(name="s", recipe="r", space=space).grid()
    drawn = SweepSpec(name="s", recipe="r", space=space, search=Search(how="random", trials=5)).grid()
    assert len(drawn) == 5
    assert [point for point in whole if point in drawn] == drawn, "in the order of the product, none twice"
    assert drawn == SweepSpec(name="another", recipe="r", space=space, search=Search(how="random", trials=5)).grid()
    assert SweepSpec(name="s", recipe="r", space=space, search=Search(how="random", trials=99)).grid() == whole


def test_a_draw_from_a_huge_product_does_not_write_it_out() -> None:
    space = {f"axis{i}": tuple(range(1000)) for i in range(5)}
    assert len(SweepSpec(name="s", recipe="r", space=space, search=Search(how="random", trials=3)).grid()) == 3


@pytest.mark.parametrize(("seeds", "message"), [((7, 8, 7), "seed 7 is given twice"), ((), "it has no seeds")])
def test_a_sweep_s_own_seeds_are_checked_like_given_ones(spec: RunSpec, seeds: tuple[int, ...], message: str) -> None:
    with pytest.raises(SpecError, match=f"sweep grid: {message}"):
        replace(GRID, seeds=seeds).check(spec)


def test_a_range_is_an_axis_of_the_command_line_and_another_search_takes_it(spec: RunSpec) -> None:
    wide = GRID.with_axes(["score.slot.lr=0.001..0.03:log"])
    assert wide.space["score.slot.lr"] == Range(low=0.001, high=0.03, log=True)
    with pytest.raises(SpecError, match="a grid takes values and no range"):
        wide.check(spec)
    drawn = wide.with_search("random", 5)
    assert len(drawn.specs(spec)) == 5
    assert drawn.with_search(None, 6).search == Search(how="random", trials=6)
    assert drawn.with_search("grid", None).search == Search()
    proposed = wide.with_search("tpe", 5)
    assert proposed.specs(spec) == [], "nobody knows them yet"
    also = replace(proposed, also=((Stage.SLIDING, {}),))
    assert [stage for stage, _, _ in also.specs(spec)] == [Stage.SLIDING]


@pytest.mark.parametrize(
    ("space", "match"),
    [
        ({"score.slot.rate": Range(low=1, high=2)}, r"score\.slot\.rate.*score\.slot\.lr"),
        ({"score.slot.lr": Range(low=-0.1, high=0.1)}, r"-0\.1"),
        ({"score.slot.steps": Range(low=1.0, high=9.0)}, r"score\.slot\.steps must be of type int, got 1\.0"),
        ({"score.slot.lr": (0.1, 0.2), "score.slot.steps": (4, "many")}, "'many'"),
        ({"score.windows.seq_len": Range(low=64, high=512), "score.windows.stride": (32, 512)}, "stride"),
    ],
)
def test_the_ends_of_what_will_be_proposed_are_checked_before_anything_runs(
    spec: RunSpec, space: dict[str, Any], match: str
) -> None:
    with pytest.raises(SpecError, match=match):
        replace(GRID, space=space, search=Search(how="tpe", trials=4)).check(spec)
    with pytest.raises(SpecError, match=r"score\.slot is off"):
        replace(GRID, search=Search(how="tpe", trials=4)).check(spec.at({"score.slot": None}))


def test_the_base_s_own_point_is_known_where_it_lies_in_the_space(spec: RunSpec) -> None:
    slot = spec.config.score.slot
    wide = Range(low=slot.lr / 2, high=slot.lr * 2)
    space: dict[str, Any] = {
        "score.slot.lr": wide,
        "score.slot.steps": (1, slot.steps),
        "gang.ranks": (spec.gang.ranks,),
    }
    assert replace(GRID, space=space).own_point(spec) == {
        "score.slot.lr": slot.lr,
        "score.slot.steps": slot.steps,
        "gang.ranks": spec.gang.ranks,
    }
    assert replace(GRID, space=space | {"score.slot.steps": (slot.steps + 1,)}).own_point(spec) is None
    assert replace(GRID, space=space | {"score.slot.lr": Range(low=slot.lr * 2, high=1.0)}).own_point(spec) is None
    assert replace(GRID, space={"score.ttt.lr": (0.1,)}).own_point(spec) is None, "it is off in this recipe"
