from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.money import Price
from service.notes import note_of
from service.report.facts import report_of
from service.spec import RunSpec

SEEDS = (7, 8)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [("pack.embed_bits", 6, ("base",)), ("train.steps", 9, ("steps=9", "base"))],
)
def test_the_winner_s_losses_are_shown_and_the_base_s_beside_them_exactly_where_it_trained_otherwise(
    spec: RunSpec,
    corpus: Corpus,
    store: FolderStore,
    finish: Callable[..., Any],
    path: str,
    value: int,
    expected: tuple[str, ...],
) -> None:
    overlays: list[dict[str, Any]] = [{}, {path: value}]
    contenders = tuple(contend(spec.at(o), o, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,)) for o in overlays)
    for mean, contender in zip((2.0, 1.0), contenders, strict=True):
        for plan in contender.plans.values():
            for planned in plan:
                if store.find(planned.key) is None:
                    finish(store, planned, {"val_bpb": mean} if planned is plan[-1] else None)
    experiment = Experiment(name="x", seeds=SEEDS, contenders=contenders)
    note = note_of(experiment, git_sha="", git_dirty=False, started_s=0.0)
    report = report_of(note, store, lambda _: False, Price())
    assert report.winner is not None
    assert report.winner.chosen.state.config is note.configs[1]
    assert [picture.name for picture in report.pictures] == ["seeds", "loss"]
    assert isinstance(draw := report.pictures[1].draw, functools.partial)
    assert tuple(title.partition(" and ")[0] for title, _ in draw.args[0]) == expected
    assert "The winner is " in report.pictures[0].alt
