from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("s3fs")

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.notes_fsspec import ALIVE_S, RemoteNotes
from service.adapters.remote import Remote
from service.adapters.stores import StoreAt, open_notes
from service.experiment import Experiment, contend
from service.notes import ExperimentNote, note_of
from service.spec import RunSpec

on_each = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)


@pytest.fixture
def note(spec: RunSpec, corpus: Corpus) -> ExperimentNote:
    base = contend(spec, {}, (1, 2), corpus, Stage.SLIDING, (Stage.SLIDING,))
    return note_of(Experiment(name="here", seeds=(1, 2), contenders=(base,)), git_sha="a", git_dirty=False, started_s=1)


@on_each
def test_notes_are_read_on_every_machine_and_removed_copies_come_back(
    url: str, tmp_path: Path, note: ExperimentNote
) -> None:
    here, there = (open_notes(StoreAt(home=tmp_path / name, url=url)) for name in ("here", "there"))
    assert there.read() == ([], [])
    here.write(note)
    assert there.read() == ([note], [])
    there.write(replace(note, baseline="lr=1", git_sha="b"))
    (mine,), _ = here.read()
    assert (mine.baseline, mine.git_sha) == ("lr=1", "a")
    shutil.rmtree(tmp_path / "here")
    assert here.read() == ([mine], [])


def test_a_driver_is_seen_alive_from_another_machine_until_it_ends_or_its_mark_is_old(
    url: str, tmp_path: Path, note: ExperimentNote, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = RemoteNotes(tmp_path / "here", Remote(url)), RemoteNotes(tmp_path / "there", Remote(url))
    assert not there.alive(note)
    with here.hold(note):
        assert here.alive(note)
        assert there.alive(note)
        now_s = there.remote.now_s()
        with monkeypatch.context() as patch:
            patch.setattr(there.remote, "now_s", lambda: now_s + ALIVE_S + 2)
            assert not there.alive(note)
    assert not there.alive(note)
    assert json.loads((tmp_path / "here/experiments" / f"{note.name}-{note.id}.json").read_text())["name"] == note.name


@pytest.mark.parametrize("shared", [True, False], ids=["folder", "url"])
def test_of_those_who_bring_a_view_up_to_date_one_does_at_a_time(
    url: str, tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.notes_fsspec.RENEW_S", 0.05)
    inside, most = [0], [0]

    def show(number: int) -> None:
        at = StoreAt(home=tmp_path / "home") if shared else StoreAt(home=tmp_path / str(number), url=url)
        notes = open_notes(at)
        for _ in range(3):
            with notes.showing():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                notes.read()
                inside[0] -= 1

    threads = [threading.Thread(target=show, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
