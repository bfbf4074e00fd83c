from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.errors import CaddieError
from service.experiment import Contender, Experiment, contend
from service.money import Price
from service.notes import ExperimentNote, confirming, note_of
from service.report.facts import report_of
from service.report.page import page_of, write_page
from service.view import view_of
from sweeps.recipes.tiny import tiny

SEEDS = (7, 8, 9)
BASE = {7: 2.30, 8: 2.31, 9: 2.33}
TRIAL = {7: 2.28, 8: 2.295, 9: 2.305}
LEAKY = {7: 1.1, 8: 1.2, 9: 1.3}
FRESH = {21: 2.29, 22: 2.30}
VOID = {"meta", "link", "img", "br", "hr", "input"}
NASTY = ("<script>alert(1)</script>", '"><img src=https://evil.example/x onerror=x>', "</style></script>{{ 7*7 }} $x$")


@dataclass
class Parsed(HTMLParser):
    """A page as a browser would take it: every element closed in turn, its attributes, its tables as text."""

    opened: list[str] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag
        self.text += " "
        if tag in ("td", "th"):
            self.tables[-1][-1][-1] = self.tables[-1][-1][-1].strip()

    def handle_data(self, data: str) -> None:
        if self.opened[-1:] in (["td"], ["th"]):
            self.tables[-1][-1][-1] += data
        if "script" not in self.opened and "style" not in self.opened:
            self.text += data

    def elements(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.seen if name == tag]


def parse(page: str) -> Parsed:
    parsed = Parsed()
    parsed.feed(page)
    parsed.close()
    assert not parsed.opened
    return parsed


@dataclass
class Made:
    note: ExperimentNote
    store: FolderStore

    def page(self, note: ExperimentNote | None = None, alive: bool = False, figures: bool = False) -> str:
        """With ``figures``, which take most of the time, only where somebody looks at them."""
        report = report_of(note or self.note, self.store, lambda _: alive, Price())
        return page_of(report if figures else replace(report, pictures=()))


@pytest.fixture(scope="module")
def made(corpus: Corpus, finish: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A race: a base, its winner with fresh seeds, one that leaks, one that was stopped, and one that failed."""
    spec, store = tiny(), FolderStore(tmp_path_factory.mktemp("report") / "home")
    overlays: list[dict[str, Any]] = [{}, *({"score.slot.lr": rate} for rate in (0.5, 0.6, 0.7, 0.8))]
    stages = [Stage.SLIDING, *[Stage.SLOT] * 4]
    contenders = tuple(contend(spec.at(o), o, SEEDS, corpus, s, (s,)) for o, s in zip(overlays, stages, strict=True))
    experiment = Experiment(name="rates-tiny", seeds=SEEDS, contenders=contenders)
    fresh = contend(spec.at(overlays[1]), overlays[1], tuple(FRESH), corpus, Stage.SLOT, (Stage.SLOT,))

    def measure(contender: Contender, values: dict[int, float], exposed: float = 0) -> None:
        for seed, value in values.items():
            for planned in contender.plans[seed]:
                if store.find(planned.key) is None:
                    last = planned is contender.plans[seed][-1]
                    score = {"val_bpb": value, "val_loss_nats": 1.7 * value, "exposed": exposed, "tokens": 50.0}
                    numbers = {Stage.TRAIN: {"train_s": 500.0, "train_steps": 9.0}, Stage.PACK: {"model_bytes": 9000.0}}
                    finish(store, planned, score if last else numbers[planned.stage])

    for contender, values in zip((*contenders[:2], fresh), (BASE, TRIAL, FRESH), strict=True):
        measure(contender, values)
    measure(contenders[2], LEAKY, exposed=5)
    measure(contenders[3], {7: 2.4})
    note = note_of(experiment, git_sha="abc123", git_dirty=True, started_s=1_760_000_000.0)
    base, won, leaky, stopped, failed = note.configs
    note = replace(
        note,
        command="caddie sweep rates --race --note 'a b'",
        configs=(
            *(base, replace(won, won=True), replace(leaky, title=NASTY[0])),
            *(replace(stopped, stopped="after 1 of 3 seeds: can't win any more"),),
            replace(failed, errors={7: "rank 0: ValueError: <b>no</b>"}),
        ),
    )
    return Made(note=confirming(note, Experiment(name="x", seeds=tuple(FRESH), contenders=(fresh,))), store=store)


@pytest.fixture(scope="module")
def page(made: Made) -> str:
    return made.page(figures=True)


def test_a_page_is_well_formed_and_its_headings_and_tables_can_be_read_aloud(page: str) -> None:
    parsed = parse(page)
    levels = [int(tag[1]) for tag, _ in parsed.seen if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(head.get("scope") in ("col", "row") for head in parsed.elements("th"))
    assert len(parsed.elements("caption")) == len(parsed.tables) == 3
    assert all(len(str(image["alt"])) > 40 for image in parsed.elements("img"))
    assert dict(parsed.elements("html")[0]) == {"lang": "en"}
    ids = [attrs["id"] for _, attrs in parsed.seen if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert {str(a["href"]).removeprefix("#") for a in parsed.elements("a")} <= set(ids)


def test_its_numbers_are_those_of_mlflow_s_view(page: str, made: Made) -> None:
    rows = {row[0]: row for row in parse(page).tables[0][1:]}
    view = view_of([made.note], made.store, lambda _: False)
    assert len(rows) == len(view.configs) == 6
    for config in view.configs:
        row, metrics = rows[config.run.name], config.run.metrics
        mean, sd = metrics.get("val_bpb_mean"), metrics.get("val_bpb_sd")
        assert row[3] == ("–" if mean is None else f"{mean:.4f}" + ("" if sd is None else f" ± {sd:.4f}"))
        assert row[4] == ("–" if "val_bpb_ci95" not in metrics else f"± {metrics['val_bpb_ci95']:.4f}")
        if "vs_base_ci95" in metrics:
            assert row[5] == f"{metrics['vs_base_mean']:+.4f} ± {metrics['vs_base_ci95']:.4f}"
            assert row[6] == f"{metrics['vs_base_p']:.2g}"
    seeds = {(row[0], int(row[1])): row for row in parse(page).tables[1][1:]}
    for config in view.configs:
        for one in config.seeds:
            row = seeds[config.run.name, int(one.params["seed"])]
            assert row[3] == (f"{one.metrics['val_bpb']:.6f}" if "val_bpb" in one.metrics else "–")


def test_configs_without_all_their_seeds_come_after_all_that_have_them(page: str, made: Made) -> None:
    rows = parse(page).tables[0][1:]
    whole = [row[2].split()[0].split("/") for row in rows]
    assert [done == of for done, of in whole] == [True] * 4 + [False] * 2
    means = [float(row[3].split()[0]) for row in rows[:4]]
    assert means == sorted(means)


def test_the_headline_says_who_chose_and_who_confirmed_and_no_leak_leads(page: str) -> None:
    text = " ".join(parse(page).text.split())
    assert "Winner lr=0.5" in text
    assert "by seeds" not in text.partition("Chosen by")[0]
    assert "seeds 7, 8, 9: a race among 4 configs beside the base" in text
    shift = (2.29 + 2.30) / 2 - (2.28 + 2.295 + 2.305) / 3
    assert f"fresh seeds 21, 22; {shift:+.4f} against those that chose it" in text
    assert "2.2950 ± 0.0071 (n=2), sd with n - 1" in text


def test_what_failed_was_stopped_or_leaks_is_said(page: str, made: Made) -> None:
    text = " ".join(parse(page).text.split())
    assert "rank 0: ValueError: <b>no</b>" in text
    assert "lr=0.7 was stopped after 1 of 3 seeds: can't win any more" in text
    assert "leaks exposed 5 of 50" in text
    assert "failed" in text.partition("Headline")[0]
    running = " ".join(parse(made.page(replace(made.note, configs=made.note.configs[:1]), alive=True)).text.split())
    assert "rates-tiny done" in running


@pytest.mark.parametrize("alive", [True, False])
def test_seeds_without_a_result_are_running_while_a_driver_lives_and_broken_off_after_it(
    made: Made, alive: bool
) -> None:
    none_failed = replace(made.note, configs=(made.note.configs[0], replace(made.note.configs[4], errors={})))
    parsed = parse(made.page(none_failed, alive=alive))
    assert ("running" if alive else "interrupted") in parsed.text.partition("Headline")[0]
    states = [row[2] for row in parsed.tables[1][1:]]
    assert states == ["done"] * 3 + ["running" if alive else "broken off"] * 3


@pytest.mark.parametrize("title", NASTY)
def test_no_text_of_a_user_becomes_markup_and_nothing_is_loaded_from_elsewhere(made: Made, title: str) -> None:
    configs = tuple(
        replace(c, title=title, recipe=title, corpus=title, stopped=title if c.stopped else "")
        for c in made.note.configs[2:]
    )
    note = replace(made.note, name=title, git_sha=title, command=title, configs=(made.note.configs[0], *configs))
    text = made.page(note)
    parsed = parse(text)
    assert len(parsed.elements("script")) == len(parsed.elements("style")) == 1
    assert any(row[0].startswith(title) for row in parsed.tables[0])
    assert not any(name.startswith("on") for _, attrs in parsed.seen for name in attrs)
    for _, attrs in parsed.seen:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            assert re.match(r"data:|#", attrs.get(name) or "#")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_figures_are_drawings_inside_the_page(page: str) -> None:
    images = [str(image["src"]) for image in parse(page).elements("img")]
    assert len(images) >= 1
    for source in images:
        kind, _, data = source.partition(";base64,")
        drawing = base64.b64decode(data, validate=True).decode()
        assert kind == "data:image/svg+xml"
        assert drawing.rstrip().endswith("</svg>")
        assert "<image" not in drawing or 'href="data:' in drawing
    assert len(page) < 2_000_000


def test_the_same_notes_and_store_give_the_same_bytes_and_nothing_there_changes(page: str, made: Made) -> None:
    def contents() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in made.store.stages.parent.rglob("*")}

    before = contents()
    assert made.page(figures=True) == page
    assert contents() == before


def test_the_command_that_began_it_is_shown_and_otherwise_one_that_runs_its_base(page: str, made: Made) -> None:
    assert made.note.command in parse(page).text
    plain = parse(made.page(replace(made.note, command="", configs=made.note.configs[:1]))).text
    assert "caddie run tiny --seeds 7,8,9" in plain


def test_an_experiment_without_a_single_result_has_a_page_too(made: Made, tmp_path: Path) -> None:
    empty = Made(note=made.note, store=FolderStore(tmp_path / "home"))
    parsed = parse(empty.page(alive=True, figures=True))
    assert "None: no config has all its seeds." in parsed.text
    assert not parsed.elements("img")
    assert not [row for row in parsed.tables[1][1:] if row[3] != "–"]


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "sub" / "page.html"
    write_page("é\n", out)
    assert out.read_bytes() == "é\n".encode()
    (tmp_path / "file").write_text("x")
    with pytest.raises(CaddieError, match="--out names another file"):
        write_page("x", tmp_path / "file" / "page.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CaddieError, match="folder"):
        write_page("x", tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "sub"]
