from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.notes_fs import NoteFolder
from service.adapters.store_fs import FolderStore
from service.errors import StoreError
from service.experiment import Experiment, contend, lookup
from service.notes import ExperimentNote, confirming, ended, from_json, labels_of, note_of, to_json
from service.overview import flat_params
from service.source import ROOT
from service.spec import RunSpec

SEEDS = (7, 8)


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    overlays: list[dict[str, Any]] = [{"score.slot.lr": 0.5}, {"score.slot": None}]
    stages = (Stage.SLOT, Stage.SLIDING)
    trials = [contend(spec.at(o), o, SEEDS, corpus, s, (s,)) for o, s in zip(overlays, stages, strict=True)]
    return Experiment(name="rates-tiny", seeds=SEEDS, contenders=(base, *trials))


@pytest.fixture
def note(experiment: Experiment) -> ExperimentNote:
    return note_of(experiment, git_sha="abc", git_dirty=True, started_s=1000.5)


@pytest.fixture
def folder(tmp_path: Path) -> NoteFolder:
    return NoteFolder(tmp_path / "home")


def test_a_note_holds_every_config_with_its_settings_and_stage_keys(
    note: ExperimentNote, experiment: Experiment
) -> None:
    assert [config.title for config in note.configs] == ["base", "lr=0.5", "slot=None"]
    for config, contender in zip(note.configs, experiment.contenders, strict=True):
        assert config.params == flat_params(contender.spec)
        assert config.digest == contender.spec.digest()
        keys = {seed: {p.stage: p.key for p in plan} for seed, plan in contender.plans.items()}
        assert config.seeds == keys


def test_a_note_reads_back_as_it_was_written(note: ExperimentNote, folder: NoteFolder) -> None:
    failed = replace(note.configs[1], errors={7: "NaN at step 3"}, stopped="can't win")
    note = replace(note, configs=(note.configs[0], failed, note.configs[2]), baseline="lr=0.5")
    assert from_json(json.loads(json.dumps(to_json(note)))) == note
    assert folder.write(note) == note
    assert folder.read() == ([note], [])


def test_the_same_stages_under_the_same_name_are_one_note_and_others_are_another(
    note: ExperimentNote, experiment: Experiment, spec: RunSpec, corpus: Corpus, folder: NoteFolder
) -> None:
    fewer = replace(experiment, contenders=experiment.contenders[:2])
    plans = {seed: contend(spec, {}, (seed,), corpus, Stage.SLIDING, (Stage.SLIDING,)).plans[seed] for seed in (7, 9)}
    other_seeds = replace(experiment, contenders=(replace(experiment.base, plans=plans),))
    for changed in (experiment, replace(experiment, name="x"), fewer, other_seeds, experiment):
        folder.write(note_of(changed, git_sha="abc", git_dirty=True, started_s=1000.5))
    assert len(folder.read()[0]) == 4


def test_running_again_keeps_the_version_that_computed_it_and_the_chosen_baseline(
    note: ExperimentNote, folder: NoteFolder
) -> None:
    folder.write(replace(note, baseline="lr=0.5"))
    folder.write(replace(note, git_sha="later", git_dirty=False, started_s=2000.0))
    ((kept,), _) = folder.read()
    assert (kept.git_sha, kept.git_dirty, kept.baseline, kept.started_s) == ("abc", True, "lr=0.5", 2000.0)


def test_an_ended_experiment_s_note_says_who_failed_who_was_stopped_and_who_won_and_keeps_fresh_seeds_apart(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, spec: RunSpec, corpus: Corpus
) -> None:
    groups = [lookup(contender, store) for contender in experiment.contenders]
    groups[1] = replace(
        groups[1], seeds={**groups[1].seeds, 8: replace(groups[1].seeds[8], error="rank 0: ValueError: no")}
    )
    fresh = contend(spec, {}, (99,), corpus, Stage.SLIDING, (Stage.SLIDING,))
    groups[0] = replace(groups[0], won=True, confirmed=lookup(fresh, store))
    groups[2] = replace(groups[2], stopped="after 1 of 2 seeds: can't win any more")
    after = ended(note, groups)
    assert [config.title for config in after.configs] == ["base", "lr=0.5", "slot=None", "base confirmed"]
    assert [config.errors for config in after.configs] == [{}, {8: "rank 0: ValueError: no"}, {}, {}]
    assert [config.stopped for config in after.configs] == ["", "", "after 1 of 2 seeds: can't win any more", ""]
    assert [config.won for config in after.configs] == [True, False, False, False]
    assert [list(config.seeds) for config in after.configs] == [[7, 8], [7, 8], [7, 8], [99]]
    assert [config.key for config in after.configs[:3]] == [config.key for config in note.configs]
    assert (after.id, after.compared_with.title) == (note.id, "base")


def test_seeds_that_confirm_are_in_the_note_from_their_beginning_as_they_are_in_the_end(
    note: ExperimentNote, experiment: Experiment, store: FolderStore, spec: RunSpec, corpus: Corpus
) -> None:
    fresh = contend(spec, {}, (99,), corpus, Stage.SLIDING, (Stage.SLIDING,))
    begun = confirming(note, Experiment(name="confirm", seeds=(99,), contenders=(fresh,)))
    groups = [lookup(contender, store) for contender in experiment.contenders]
    groups[0] = replace(groups[0], confirmed=lookup(fresh, store))
    assert [config.title for config in begun.configs] == ["base", "lr=0.5", "slot=None", "base confirmed"]
    assert ended(note, groups) == ended(begun, groups) == begun


def test_a_file_that_is_no_note_is_named_and_left_out(note: ExperimentNote, folder: NoteFolder) -> None:
    folder.write(note)
    contents = {
        "cut": json.dumps(to_json(note))[:200],
        "newer": json.dumps(to_json(note) | {"format": 99}),
        "empty": "{}",
        "list": "[]",
        "unknown": json.dumps(to_json(note) | {"colour": "red"}),
        "bare": json.dumps(to_json(note) | {"configs": []}),
    }
    for name, text in contents.items():
        (folder.folder / f"{name}.json").write_text(text, encoding="utf-8")
    notes, strange = folder.read()
    assert notes == [note]
    assert sorted(Path(line.split(": ")[0]).stem for line in strange) == sorted(contents)
    assert "99" in next(line for line in strange if "newer" in line)


def test_a_home_without_notes_has_none_and_stays_as_it_is(folder: NoteFolder, note: ExperimentNote) -> None:
    assert folder.read() == ([], [])
    assert not folder.alive(note)
    assert not folder.folder.exists()


HOLD = """
import json, sys, time
from pathlib import Path
from service.adapters.notes_fs import NoteFolder
from service.notes import from_json
note = from_json(json.loads(Path(sys.argv[2]).read_text()))
with NoteFolder(Path(sys.argv[1])).hold(note):
    print("held", flush=True)
    time.sleep(600)
"""


def test_an_experiment_is_alive_exactly_while_a_driver_has_it(
    note: ExperimentNote, folder: NoteFolder, tmp_path: Path
) -> None:
    (tmp_path / "note.json").write_text(json.dumps(to_json(note)))
    command = [sys.executable, "-c", HOLD, str(folder.folder.parent), str(tmp_path / "note.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        assert folder.alive(note)
        with folder.hold(note):
            assert folder.alive(note)
        assert folder.alive(note), "the other driver goes on"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not folder.alive(note)
    assert folder.read()[0] == [note]


def test_a_disk_that_refuses_is_our_error(note: ExperimentNote, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StoreError, match="CADDIE_HOME"):
        NoteFolder(tmp_path / "home").write(note)


def test_titles_that_are_equal_are_told_apart_by_their_score(
    spec: RunSpec, corpus: Corpus, finish: Callable[..., Any]
) -> None:
    contenders = tuple(contend(spec, {}, SEEDS, corpus, stage, (stage,)) for stage in (Stage.SLIDING, Stage.SLOT))
    note = note_of(
        Experiment(name="run-tiny", seeds=SEEDS, contenders=contenders), git_sha="", git_dirty=False, started_s=0.0
    )
    assert labels_of(note.configs) == ["base (sliding)", "base (slot)"]
    assert replace(note, baseline="base (slot)").compared_with is note.configs[1]
    assert note.compared_with is note.configs[0]
