from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from model.adapt.ttt import Ttt
from model.codec import decode
from model.data.shards import Corpus
from model.stages import STAGES, Stage
from service.source import ROOT, reach
from service.spec import RunSpec
from service.stages import plan_seed

TRAIN, PACK, SLIDING, SLOT = Stage.TRAIN, Stage.PACK, Stage.SLIDING, Stage.SLOT
ALL = {TRAIN, PACK, SLIDING, SLOT}
BY_CLOCK = {"train.minutes": 1.0}

# What changes, from which base, and the stages that then are other computations. All the others stay.
TABLE: list[tuple[str, dict[str, Any], dict[str, Any], set[Stage]]] = [
    ("SLOT's rate", {}, {"score.slot.lr": 0.5}, {SLOT}),
    ("SLOT's positions", {}, {"score.slot.loss_on": "scored"}, {SLOT}),
    ("the stride", {}, {"score.windows.stride": 64}, {SLIDING, SLOT}),
    ("the windows of a batch", {}, {"score.windows.batch_seqs": 8}, {SLIDING, SLOT}),
    ("the bits of a matrix", {}, {"pack.matrix_bits": 5}, {PACK, SLIDING, SLOT}),
    ("the codec", {}, {"pack.codec": "lzma"}, {PACK, SLIDING, SLOT}),
    ("the steps", {}, {"train.steps": 7}, ALL),
    ("a learning rate", {}, {"train.optim.embed_lr": 0.5}, ALL),
    ("the width", {}, {"net.dim": 48}, ALL),
    ("the threads", {}, {"gang.threads": 2}, ALL),
    ("the ranks", {}, {"gang.ranks": 2}, ALL),
    ("the device", {}, {"gang.device": "cuda"}, ALL),
    ("the hardware, when steps end the training", {}, {"gang.hardware": "H100-SXM"}, set()),
    ("the hardware, when the clock ends it", BY_CLOCK, {"gang.hardware": "H100-SXM"}, ALL),
    ("ending by the clock", {}, BY_CLOCK, ALL),
    ("the artifact's cap", {}, {"budget.artifact_bytes": 1}, set()),
    ("the clocks' caps", {}, {"budget.train_s": 1, "budget.eval_s": 2, "budget.slack_s": 3}, set()),
]


def keys(spec: RunSpec, corpus: Corpus, seed: int = 42) -> dict[Stage, str]:
    return {planned.stage: planned.key for planned in plan_seed(spec, seed, corpus)}


def moved(before: dict[Stage, str], after: dict[Stage, str]) -> set[Stage]:
    assert before.keys() == after.keys()
    return {stage for stage in before if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("base", "change", "expected"), [row[1:] for row in TABLE], ids=[row[0].replace(" ", "-") for row in TABLE]
)
def test_a_change_moves_the_keys_of_what_it_can_change_and_no_other(
    spec: RunSpec, corpus: Corpus, base: dict[str, Any], change: dict[str, Any], expected: set[Stage]
) -> None:
    spec = spec.at(base)
    assert moved(keys(spec, corpus), keys(spec.at(change), corpus)) == expected


def test_another_seed_is_another_training_and_so_another_everything(spec: RunSpec, corpus: Corpus) -> None:
    assert moved(keys(spec, corpus, 42), keys(spec, corpus, 43)) == ALL


def test_another_corpus_is_another_everything_but_its_name_and_place_do_not_count(
    spec: RunSpec, corpus: Corpus, tmp_path: Path
) -> None:
    assert moved(keys(spec, corpus), keys(spec, replace(corpus, digest="f" * 16))) == ALL
    elsewhere = replace(corpus, folder=tmp_path, tokenizer=tmp_path / "t.model", name="other")
    assert moved(keys(spec, corpus), keys(spec, elsewhere)) == set()


def test_names_and_notes_move_no_key(spec: RunSpec, corpus: Corpus) -> None:
    told = replace(spec, name="another", notes="a long story")
    assert moved(keys(spec, corpus), keys(told, corpus)) == set()


def test_a_score_more_or_less_leaves_the_other_stages_alone(spec: RunSpec, corpus: Corpus) -> None:
    both, one = keys(spec, corpus), keys(spec.at({"score.slot": None}), corpus)
    assert one == {stage: both[stage] for stage in (TRAIN, PACK, SLIDING)}


def test_only_the_scores_that_are_asked_for_are_planned(spec: RunSpec, corpus: Corpus) -> None:
    plan = plan_seed(spec, 42, corpus, (SLOT,))
    assert [planned.stage for planned in plan] == [TRAIN, PACK, SLOT]
    assert {planned.stage: planned.key for planned in plan}.items() <= keys(spec, corpus).items()


def test_a_changed_slot_setting_scores_again_and_trains_nothing(spec: RunSpec, corpus: Corpus) -> None:
    grid = [{"score.slot.lr": lr, "score.slot.steps": n} for lr in (0.1, 0.2) for n in (1, 2, 3)]
    plans = [keys(spec.at(overlay), corpus) for overlay in grid]
    assert [len({plan[stage] for plan in plans}) for stage in (TRAIN, PACK, SLIDING, SLOT)] == [1, 1, 1, 6]


def test_each_stage_names_the_key_of_the_one_it_stands_on_and_follows_it(spec: RunSpec, corpus: Corpus) -> None:
    seen: dict[str, str] = {}
    for planned in plan_seed(spec, 42, corpus):
        after = next((str(stage) for stage in STAGES[planned.stage].after if str(stage) in seen), None)
        assert planned.inputs == ({after: seen[after]} if after else {})
        seen[str(planned.stage)] = planned.key
    assert list(seen) == ["train", "pack", "score.sliding", "score.slot"]
    assert len(set(seen.values())) == 4


def test_adaptation_before_packing_stands_between_training_and_packing_and_moves_all_that_follows(
    spec: RunSpec, corpus: Corpus
) -> None:
    adapted = replace(spec, config=replace(spec.config, adapt=AdaptConfig(prequant=Prequant())))
    plan = {planned.stage: planned for planned in plan_seed(adapted, 42, corpus)}
    assert list(plan) == [TRAIN, Stage.PREQUANT, PACK, SLIDING, SLOT]
    assert plan[Stage.PREQUANT].inputs == {"train": plan[TRAIN].key}
    assert plan[PACK].inputs == {"adapt.prequant": plan[Stage.PREQUANT].key}
    plain = keys(spec, corpus)
    assert {stage for stage, key in plain.items() if plan[stage].key != key} == {PACK, SLIDING, SLOT}
    slower = keys(adapted.at({"adapt.prequant.lr": 0.1}), corpus)
    assert {stage for stage, key in slower.items() if plan[stage].key != key} == {Stage.PREQUANT, PACK, SLIDING, SLOT}


def test_test_time_training_is_one_more_score_and_moves_no_other(spec: RunSpec, corpus: Corpus) -> None:
    learning = replace(spec, config=replace(spec.config, score=replace(spec.config.score, ttt=Ttt())))
    plain, more = keys(spec, corpus), keys(learning, corpus)
    assert list(more) == [TRAIN, PACK, SLIDING, Stage.TTT, SLOT]
    assert plain == {stage: more[stage] for stage in plain}
    faster = keys(learning.at({"score.ttt.rule.momentum": 0.5}), corpus)
    assert moved(more, faster) == {Stage.TTT}


def test_two_keys_that_differ_say_in_which_part(spec: RunSpec, corpus: Corpus) -> None:
    before = plan_seed(spec, 42, corpus)
    after = plan_seed(spec.at({"score.slot.lr": 0.5, "pack.matrix_bits": 5}), 42, corpus)
    differing = {
        old.stage: {name for name in old.parts if old.parts[name] != new.parts[name]}
        for old, new in zip(before, after, strict=True)
    }
    assert differing == {
        TRAIN: set(),
        PACK: {"pack"},
        SLIDING: {"input pack"},
        SLOT: {"input pack", "score.slot"},
    }


def test_a_stage_starts_from_the_modules_it_runs_and_no_stage_from_those_of_another(
    spec: RunSpec, corpus: Corpus
) -> None:
    plan = {planned.stage: planned for planned in plan_seed(spec, 42, corpus)}
    reached = {stage: set(reach(planned.modules)) for stage, planned in plan.items()}
    for stage in ALL:
        assert STAGES[stage].entry.split(":")[0] in reached[stage]
        assert not reached[stage] & {"model.stages", "model.run", "model.__main__", "model.environment"}
    assert not {name for name in reached[TRAIN] | reached[PACK] if name.startswith("model.score")}
    assert "model.train" not in reached[PACK] | reached[SLIDING] | reached[SLOT]
    assert "model.score.slot" in reached[SLOT] - reached[SLIDING]


def test_the_job_s_config_is_the_whole_config(spec: RunSpec, corpus: Corpus) -> None:
    for planned in plan_seed(spec, 42, corpus):
        assert decode(json.loads(json.dumps(planned.config))) == spec.config


@pytest.mark.parametrize(
    ("changes", "train_s", "score_s"),
    [
        ({}, 900, 900),
        ({"budget.train_s": 60, "budget.eval_s": 30, "budget.slack_s": 5}, 65, 35),
        ({"train.minutes": 20, "budget.slack_s": 1}, 1201, 601),
        ({"train.minutes": 5, "budget.slack_s": 1}, 601, 601),
    ],
)
def test_a_gang_is_ended_at_the_cap_of_its_clock_and_the_slack(
    spec: RunSpec, corpus: Corpus, changes: dict[str, Any], train_s: float, score_s: float
) -> None:
    deadlines = {planned.stage: planned.deadline_s for planned in plan_seed(spec.at(changes), 42, corpus)}
    assert deadlines[TRAIN] == train_s
    assert deadlines[SLIDING] == deadlines[SLOT] == score_s


def test_a_key_tells_its_stage_and_is_a_plain_file_name(spec: RunSpec, corpus: Corpus) -> None:
    for stage, key in keys(spec, corpus).items():
        name, _, digest = key.rpartition("-")
        assert name == stage.replace(".", "-")
        assert len(digest) == 16
        assert int(digest, 16) >= 0


OTHER_PROCESS = """
import json, sys
from pathlib import Path
from model.data.shards import open_corpus
from service.stages import plan_seed
from sweeps.recipes.tiny import tiny
plan = plan_seed(tiny(), 42, open_corpus(Path(sys.argv[1])))
print(json.dumps([tiny().digest(), {planned.stage: planned.key for planned in plan}]))
"""


def test_the_same_spec_has_the_same_keys_again_and_in_any_other_process(spec: RunSpec, corpus: Corpus) -> None:
    first = keys(spec, corpus)
    assert keys(spec.at({}), corpus) == first
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(corpus.folder)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        cwd=corpus.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [spec.digest(), first]


@pytest.mark.parametrize(
    ("change", "together"),
    [
        ({"score.slot.lr": 0.5}, True),
        ({"score.slot.steps": 3, "score.slot.per": "batch"}, True),
        ({"score.slot.loss_on": "scored"}, False),
        ({"score.slot.context_tokens": 9}, False),
        ({"score.windows.stride": 64}, False),
        ({"pack.matrix_bits": 5}, False),
        ({"gang.threads": 2}, False),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_slot_stages_go_together_when_only_how_they_fit_differs(
    spec: RunSpec, corpus: Corpus, change: dict[str, Any], together: bool
) -> None:
    one, other = (plan_seed(changed, 42, corpus)[-1] for changed in (spec, spec.at(change)))
    assert one.stage is other.stage is SLOT
    assert one.key != other.key
    assert (one.together == other.together) is together
    assert plan_seed(spec, 7, corpus)[-1].together != one.together
    assert {planned.together for planned in plan_seed(spec, 42, corpus)[:-1]} == {""}
