from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.errors import SpecError
from service.experiment import Experiment, contend
from service.follow import follow
from service.logs import choose, entries_of, failure_lines, newest, short, shown
from service.notes import ExperimentNote, note_of
from service.spec import RunSpec
from service.stages import PlannedStage

SEEDS = (7, 8)


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    trial = contend(spec.at({"score.slot.lr": 0.5}), {"score.slot.lr": 0.5}, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,))
    return Experiment(name="rates-tiny", seeds=SEEDS, contenders=(base, trial))


@pytest.fixture
def notes(experiment: Experiment) -> list[ExperimentNote]:
    """An experiment, and an older one of another name with the same stages."""
    note = note_of(experiment, git_sha="", git_dirty=False, started_s=4000.0)
    return [replace(note, name="older", id="0", started_s=1.0), note]


def planned(experiment: Experiment, stage: Stage, seed: int) -> PlannedStage:
    plans = (plan for contender in experiment.contenders for plan in (contender.plans[seed],))
    return next(one for plan in plans for one in plan if one.stage is stage)


def begin(store: FolderStore, one: PlannedStage, text: str, **job: Any) -> Path:
    attempt = store.begin(one.key)
    (attempt / "job.json").write_text(json.dumps(job))
    (attempt / "log.txt").write_text(text)
    return attempt


def fail(attempt: Path, *ranks: int) -> None:
    (attempt / "out").mkdir()
    for rank in ranks:
        failure = {
            "rank": rank,
            "error": f"ValueError: of {rank}",
            "traceback": f"Traceback\n  ValueError: of {rank}\n",
        }
        (attempt / "out" / f"failure.{rank}.json").write_text(json.dumps(failure))


def test_each_word_narrows_and_without_an_experiment_the_newest_is_meant(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore
) -> None:
    entries = entries_of(notes, store)

    def names(what: str) -> set[tuple[str, str, int | None]]:
        return {(one.note.name if one.note else "", one.stage, one.seed) for one in choose(what, entries)}

    kinds = ("train", "pack", "score.sliding", "score.slot")
    assert names("") == names("rates-tiny") == {("rates-tiny", kind, seed) for kind in kinds for seed in SEEDS}
    assert names("rates-tiny:7") == names("7") == {("rates-tiny", kind, 7) for kind in kinds}
    assert names("train:8") == names("8:train") == {("rates-tiny", "train", 8)}
    assert names("older:score-slot:8") == names("older:score.slot:8") == {("older", "score.slot", 8)}
    key = planned(experiment, Stage.SLOT, 7).key
    for word in (key, short(key)):
        assert [one.key for one in choose(word, entries)] == [key]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nobody", ["'nobody'", "rates-tiny, older", "train, pack, score.sliding, score.slot", "seed 7, 8"]),
        ("older:9", ["'9'", "experiment older"]),
        ("train-0000", ["'train-0000'"]),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    notes: list[ExperimentNote], store: FolderStore, what: str, words: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        choose(what, entries_of(notes, store))
    assert [word for word in words if word not in str(refused.value)] == []


def test_an_empty_store_says_how_to_start(store: FolderStore) -> None:
    with pytest.raises(SpecError, match="caddie sweep slot"):
        choose("", entries_of([], store))


def test_what_runs_comes_before_what_was_tried_later(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    entries = choose("", entries_of(notes, store))
    with pytest.raises(SpecError, match="nothing of it has begun"):
        newest(entries, store)
    train, other = planned(experiment, Stage.TRAIN, 7), planned(experiment, Stage.TRAIN, 8)
    begin(store, train, "step:1/9\n")
    finish(store, other)
    assert newest(entries, store).key == other.key
    with store.lock(train.key):
        assert newest(entries, store).key == train.key


def test_a_log_is_that_of_the_newest_try_and_of_a_finished_stage_the_published_one(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    train = planned(experiment, Stage.TRAIN, 7)
    entry = choose(train.key, entries_of(notes, store))[0]
    begin(store, train, "first\n")
    begin(store, train, "second\n")
    assert (shown(entry, store).text, shown(entry, store).state) == ("second\n", "interrupted")
    assert shown(entry, store, 1).text == "first\n"
    with pytest.raises(SpecError, match=r"no attempt 5; there is 1, 2"):
        shown(entry, store, 5)
    with store.lock(train.key):
        assert shown(entry, store).state == "running"
        assert shown(entry, store, 1).state == "interrupted"
    finish(store, train)
    done = shown(entry, store).to_json()
    assert (done["state"], done["attempt"], done["lines"]) == ("done", 3, ["train of seed 7"])
    assert (done["log"], done["gang_of"]) == (str(store.folder(train.key) / "log.txt"), None)


def test_a_failed_try_shows_the_rank_that_died_first(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore
) -> None:
    train = planned(experiment, Stage.TRAIN, 7)
    attempt = begin(store, train, "step:1/9\n")
    fail(attempt, 1, 0)
    os.utime(attempt / "out" / "failure.1.json", ns=(10, 10))
    one = shown(choose(train.key, entries_of(notes, store))[0], store)
    assert (one.state, [failure.rank for failure in one.failures]) == ("failed", [1, 0])
    assert failure_lines(one.failures) == [
        "rank 1 failed:",
        "Traceback",
        "  ValueError: of 1",
        "rank 0: ValueError: of 0",
    ]


def test_of_stages_that_shared_a_gang_each_has_its_own_log_and_the_first_one_the_last_words(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore
) -> None:
    first, along = planned(experiment, Stage.SLOT, 7), planned(experiment, Stage.SLOT, 8)
    company = store.begin(along.key)
    leading = begin(store, first, "of all\n", alongside={f"/elsewhere/{along.key}/1/out": {}})
    entry = choose(along.key, entries_of(notes, store))[0]
    assert (shown(entry, store).text, shown(entry, store).gang) == ("of all\n", first.key)
    (company / "log.txt").write_text("scored:10% running_bpb:2.5\n")
    assert shown(entry, store).text == "scored:10% running_bpb:2.5\n"
    fail(leading, 0)
    one = shown(entry, store)
    assert (one.text, one.state, one.failures[0].rank) == ("of all\n", "failed", 0)


class Script:
    """What happens between two looks of somebody who follows; after the last of it, nobody is alive any more."""

    def __init__(self, steps: Iterator[None]) -> None:
        self.steps, self.over = steps, False

    def wait(self) -> None:
        self.over = next(self.steps, self) is self

    def alive(self) -> bool:
        return not self.over


def test_following_goes_from_stage_to_stage_and_ends_with_the_driver(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore, finish: Callable[..., Any]
) -> None:
    train, pack = planned(experiment, Stage.TRAIN, 7), planned(experiment, Stage.PACK, 7)

    def steps() -> Iterator[None]:
        yield
        with store.lock(train.key):
            log = begin(store, train, "step:1/9\n") / "log.txt"
            yield
            with open(log, "ab") as file:
                file.write("step:2/9 é".encode()[:-1])
            yield
            with open(log, "ab") as file:
                file.write("é".encode()[-1:] + b" at the end")
            finish(store, train)
        with store.lock(pack.key):
            attempt = begin(store, pack, "packing\n")
            yield
            fail(attempt, 0)
            yield
            begin(store, pack, "packing again\n")
            yield
        yield

    script = Script(steps())
    said = "".join(follow(choose("7", entries_of(notes, store)), store, script.alive, script.wait))
    lines = said.splitlines()
    assert lines[:3] == [
        f"==> {short(train.key)} of seed 7, rates-tiny, attempt 1",
        "step:1/9",
        "step:2/9 é at the end",
    ]
    assert lines[3].startswith(f"==> {short(train.key)} done in ")
    assert lines[4:-1] == [
        f"==> {short(pack.key)} of seed 7, rates-tiny, attempt 1",
        "packing",
        "rank 0 failed:",
        "Traceback",
        "  ValueError: of 0",
        f"==> {short(pack.key)} of seed 7, rates-tiny, attempt 2",
        "packing again",
    ]
    assert "ended without a result" in lines[-1]


def test_following_a_seed_leaves_out_the_others(
    notes: list[ExperimentNote], experiment: Experiment, store: FolderStore
) -> None:
    mine, other = planned(experiment, Stage.TRAIN, 7), planned(experiment, Stage.TRAIN, 8)

    def steps() -> Iterator[None]:
        with store.lock(mine.key), store.lock(other.key):
            begin(store, other, "theirs\n")
            begin(store, mine, "mine\n")
            yield
        yield

    script = Script(steps())
    said = "".join(follow(choose("rates-tiny:7", entries_of(notes, store)), store, script.alive, script.wait))
    assert "mine" in said
    assert "theirs" not in said
