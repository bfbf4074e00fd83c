from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.shards import Corpus
from model.stages import Stage
from service.adapters.notes_fs import NoteFolder
from service.adapters.store_fs import FolderStore
from service.audit import plan_audit
from service.cli.app import run_command, script_words
from service.cli.context import Commands
from service.cli.show import show_groups
from service.corpus.documents import find_documents
from service.corpus.prepare import prepare
from service.experiment import Experiment, contend, lookup
from service.overview import flat_params
from service.racing import Racing
from service.search import known
from service.source import ROOT
from service.space import Range, Search
from service.spec import RunSpec, SweepSpec
from service.stages import plan_seed
from sweeps.recipes import RECIPES
from sweeps.recipes.tiny import tiny
from sweeps.spaces import SWEEPS
from tests.hook_server import hook_server

VOCAB = 340
SWEEP_SCRIPTS = [path for path in (ROOT / "sweeps").glob("*.py") if not path.name.startswith("__")]
SEEDS = (7, 8)


def small() -> RunSpec:
    """The tiny recipe over the tests' documents."""
    spec = tiny()
    net = replace(spec.config.net, vocab_size=VOCAB)
    return replace(spec, name="small", corpus=os.environ["TEST_DOCUMENTS"], config=replace(spec.config, net=net))


def interrupted() -> RunSpec:
    """Ctrl-C while a command works."""
    raise KeyboardInterrupt


def terminated() -> RunSpec:
    """What `kill` and `ray job stop` do to a command that works."""
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("SIGTERM did not end the command")


SMALL = {name: f"{__name__}:{name}" for name in ("small", "interrupted", "terminated")}
RATES = SweepSpec(name="rates", recipe="small", space={"score.slot.lr": (0.1, 0.2)}, seeds=SEEDS)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be one document and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path, documents_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home. Nothing here needs a cluster or MLflow, so both have an address that is refused at once."""
    monkeypatch.setenv("CADDIE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEST_DOCUMENTS", str(documents_file))
    monkeypatch.setenv("RAY_ADDRESS", "nobody")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def caddie(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """``caddie("plan", "small")``: one command with the small recipe; SIGTERM is as before afterwards."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: str, recipes: Mapping[str, str] = SMALL, sweeps: Mapping[str, SweepSpec] | None = None) -> Answer:
        capsys.readouterr()
        code = run_command(words, recipes, {"rates": RATES} if sweeps is None else sweeps)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Answer(code=code, out=said.out, err=said.err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def small_corpus(home: Path, documents_file: Path) -> Corpus:
    """The corpus of the small recipe, in the home."""
    return prepare(find_documents(str(documents_file)), VOCAB, home / "corpora", print)


@pytest.fixture
def finished(home: Path, small_corpus: Corpus, finish: Callable[..., Any]) -> FolderStore:
    """Every stage of the small recipe and of its sweep, for two seeds."""
    store = FolderStore(home)
    for overlay in ({}, *RATES.grid()):
        for seed in SEEDS:
            for planned in plan_seed(small().at(overlay), seed, small_corpus):
                if store.find(planned.key) is None:
                    finish(store, planned)
    return store


REFUSED = {
    "an unknown recipe": (["run", "tinny"], r"no recipe 'tinny'; there is .*small"),
    "an unknown recipe or sweep to plan": (["plan", "tinny"], r"no recipe 'tinny'"),
    "an unknown recipe to record": (["record", "assemble", "tinny"], r"no recipe 'tinny'"),
    "an unknown baseline of a record": (
        ["record", "assemble", "small", "--baseline-recipe", "smal"],
        r"no recipe 'smal'; there is .*small",
    ),
    "a record in two places": (
        ["record", "assemble", "small", "--pr", "clone", "--out", "folder"],
        r"--pr clone and --out folder: .*give one of them",
    ),
    "an unknown sweep": (["sweep", "rate"], r"no sweep 'rate'; there is rates"),
    "an unknown recipe of a sweep": (["sweep", "rates", "--recipe", "big"], r"no recipe 'big'"),
    "an unknown path": (["run", "small", "--set", "net.dims=3"], r"'net\.dims': no field 'dims'; there is .*net\.dim"),
    "an unknown axis": (["sweep", "rates", "--space", "score.slot.rate=1,2"], r"score\.slot\.rate.*score\.slot\.lr"),
    "a wrong type": (["run", "small", "--set", "train.steps=many"], r"train\.steps must be of type int, got 'many'"),
    "an unknown axis of a search": (
        ["sweep", "rates", "--search", "tpe", "--trials", "4", "--space", "score.slot.rate=0.1..1"],
        r"score\.slot\.rate.*score\.slot\.lr",
    ),
    "an end of a range that does not fit": (
        ["sweep", "rates", "--search", "tpe", "--trials", "4", "--space", "score.slot.lr=-1..1"],
        r"score\.slot: lr .*got -1",
    ),
    "a range in a grid": (
        ["sweep", "rates", "--space", "score.slot.lr=0.1..1:log"],
        r"score\.slot\.lr=0\.1\.\.1:log: a grid takes values and no range",
    ),
    "a range from high to low": (["sweep", "rates", "--space", "score.slot.lr=1..0.1"], r"'score\.slot\.lr=1\.\.0\.1'"),
    "an unknown search": (["sweep", "rates", "--search", "bayes"], r"--search bayes: .*grid, random and tpe"),
    "a search without a number": (["sweep", "rates", "--search", "tpe"], r"how many trials tpe takes with --trials N"),
    "a search of no trials": (["sweep", "rates", "--search", "random", "--trials", "0"], r"1 or more; got 0"),
    "trials of a grid": (["sweep", "rates", "--trials", "3"], r"--trials 3: 3 trials of a grid"),
    "a race of proposals": (
        ["sweep", "rates", "--search", "tpe", "--trials", "4", "--race"],
        r"--search tpe with --race: .* --no-race",
    ),
    "a huge grid": (
        [
            "sweep",
            "rates",
            *(f"--space=score.slot.{p}={','.join(map(str, range(1, 60)))}" for p in ("lr", "steps", "eps")),
        ],
        r"a grid of 205,379 points",
    ),
    "a loop outside the layers": (
        ["run", "small", "--set", "net.recurrence=model.net.recurrence:Recurrence", "--set", "net.recurrence.last=9"],
        r"net\.recurrence: first and last must be layers, in order, of net\.layers=3 from 0, got 4 and 9",
    ),
    "heads that don't divide the width": (
        ["run", "small", "--set", "net.heads=5"],
        r"net: heads must divide dim and kv_heads must divide heads, got dim=96, heads=5, kv_heads=1",
    ),
    "key-value heads that don't divide the heads": (
        ["sweep", "rates", "--set", "net.kv_heads=2"],
        r"kv_heads must divide heads, got dim=96, heads=3, kv_heads=2",
    ),
    "a part in layers that aren't there": (
        ["run", "small", "--set", "net.xsa=model.net.xsa:Xsa"],
        r"net\.xsa\.last must be 1 to net\.layers=3, got 11",
    ),
    "a document's start outside the vocabulary": (
        ["run", "small", "--set", "net.smear=model.net.smear:SmearGate", "--set", "net.smear.document_start=340"],
        r"net\.smear\.document_start must be a token of net\.vocab_size=340, got 340",
    ),
    "batches of no whole sequence": (
        ["run", "small", "--set", "train.batch_tokens=1000"],
        r"train\.batch_tokens=1000 is not a multiple of train\.seq_len=256",
    ),
    "windows that leave tokens out": (
        ["run", "small", "--set", "score.windows.stride=257"],
        r"score\.windows\.stride must be 1 to seq_len=256, got 257",
    ),
    "a cap that the code alone breaks": (
        ["run", "small", "--set", "budget.artifact_bytes=15000"],
        r"budget\.artifact_bytes=15,000 of small: its code alone takes [\d,]+ bytes.*whatever pack\.\* says",
    ),
    "a broken value": (["plan", "small", "--set", "gang.ranks=0"], r"gang\.ranks.* 1 or more, got 0"),
    "a change without a value": (["run", "small", "--set", "train.steps"], r"--set 'train\.steps': write it as PATH"),
    "an axis without values": (["sweep", "rates", "--space", "score.slot.lr="], r"--space .*PATH=V1,V2"),
    "seeds that are no numbers": (["run", "small", "--seeds", "a,b"], r"--seeds 'a,b': write whole numbers"),
    "a repeated seed": (["sweep", "rates", "--seeds", "7,7"], r"7 is given twice"),
    "a score that is off": (["sweep", "rates", "--set", "score.slot=none"], r"score\.slot"),
    "a budget of nothing": (["run", "small", "--budget", "0usd"], r"--budget '0usd': write dollars as 60usd"),
    "a budget without a unit": (["sweep", "rates", "--no-record", "--budget", "60"], r"60usd or GPU-hours as 3h"),
    "a budget that is too small": (
        ["run", "small", "--budget", "1usd"],
        r"plan needs .* USD.*budget is .*1\.00 USD",
    ),
    "a grid larger than the budget": (
        ["sweep", "rates", "--budget", "1usd"],
        r"plan needs 1\.67 GPU-h \(4\.17 USD\), the budget is 0\.4 GPU-h \(1\.00 USD\)",
    ),
    "a search larger than the budget": (
        [
            "sweep",
            "rates",
            "--search",
            "random",
            "--trials",
            "9",
            "--space",
            "score.slot.lr=0.1..1",
            "--budget",
            "1usd",
        ],
        r"plan needs .* USD.*budget is .*1\.00 USD",
    ),
    "a price of nothing": (["plan", "small", "--price", "0"], r"price of a node-hour is above 0 USD, got 0"),
    "a reuse of nothing": (["plan", "small", "--reuse", "train-0123456789abcdef"], r"train-0123.*: no finished stage"),
    "a reuse of a place": (["plan", "small", "--reuse", "train-/../../x"], r"no finished stage"),
    "a script that is not there": (["plan", "nowhere.py"], r"nowhere\.py: no script of a sweep"),
    "a base without its score": (["sweep", "rates", "--set", "score.sliding=none"], r"score\.sliding"),
    "a race with one seed": (["sweep", "rates", "--race", "--seeds", "7"], r"--race: .* 2 seeds or more .* got 1"),
    "a seed that chooses and confirms": (
        ["sweep", "rates", "--race", "--confirm", "9,8"],
        r"--race: seed 8 would both",
    ),
    "confirming without a race": (["sweep", "rates", "--confirm", "9"], r"--confirm 9: .* without --race"),
    "a seed that confirms twice": (
        ["sweep", "rates", "--race", "--confirm", "9,9"],
        r"--confirm '9,9': 9 is given twice",
    ),
    "a fresh seed of the usual ones that chooses": (
        ["sweep", "rates", "--race", "--seeds", "42,314"],
        r"--race: seed 314 would both choose and confirm; give --confirm",
    ),
    "no score at all": (["run", "small", "--set", "score.slot=none", "--set", "score.sliding=none"], r"no score"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line_with_the_way_out(
    caddie: Run, home: Path, words: list[str], message: str
) -> None:
    answer = caddie(*words)
    assert answer.code == 2
    assert answer.out == ""
    last = answer.err.rstrip().splitlines()[-1]
    assert last.startswith("caddie: ")
    assert re.search(message, last)
    assert not (home / "attempts").exists() or list((home / "attempts").iterdir()) == []


@pytest.mark.parametrize("racing", [None, Racing(confirm=(21, 22))])
def test_a_race_tells_which_seeds_chose_and_which_confirmed_and_is_off_unless_asked_for(
    caddie: Run, finished: FolderStore, small_corpus: Corpus, finish: Callable[..., Any], racing: Racing | None
) -> None:
    for overlay in ({}, *RATES.grid()):
        for seed in (21, 22):
            for planned in plan_seed(small().at(overlay), seed, small_corpus):
                if finished.find(planned.key) is None:
                    finish(finished, planned)
    sweeps = {"rates": replace(RATES, racing=racing)}
    asked = [] if racing else ["--race", "--confirm", "21,22"]
    words = ["sweep", "rates", "--no-record"]
    race = caddie(*words, *asked, "--json", sweeps=sweeps).json()["race"]
    assert (race["seeds_that_chose"], race["seeds_that_confirmed"]) == ([7, 8], [21, 22])
    told = " ".join(caddie(*words, *asked, sweeps=sweeps).out.split())
    assert re.search(r"race .* of the grid's 4 seed runs", told)
    assert re.search(r"chosen .*, by seeds 7, 8 confirmed .* \(n=2\), by fresh seeds 21, 22", told)
    assert "race" not in caddie(*words, "--no-race", "--json", sweeps=sweeps).json()
    without = caddie(*words, *asked, "--confirm", "none", "--race", "--json", sweeps=sweeps).json()["race"]
    assert without["seeds_that_confirmed"] == []


USAGE = {
    "an unknown command": (["frobnicate"], "frobnicate"),
    "an unknown option": (["recipes", "--jso"], "--jso"),
    "a missing argument": (["run"], "recipe"),
    "an option without its value": (["run", "small", "--seeds"], "--seeds"),
    "a size that is no number": (["data", "prepare", "--vocab-size", "many"], "--vocab-size"),
    "a port that does not exist": (["ui", "--port", "70000"], "--port"),
}


@pytest.mark.parametrize(("words", "name"), USAGE.values(), ids=USAGE)
def test_a_slip_of_the_keyboard_is_named_without_a_traceback(
    caddie: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], name: str
) -> None:
    monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("the server was started"))
    answer = caddie(*words)
    assert answer.code == 2
    assert name in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("words", [[], ["record"], ["data"]])
def test_without_a_command_the_commands_are_listed(caddie: Run, words: list[str]) -> None:
    answer = caddie(*words)
    assert answer.code == 2
    assert "Commands" in answer.out + answer.err


@pytest.mark.parametrize("recipe", ["interrupted", "terminated"])
def test_an_interrupted_command_says_that_the_same_one_goes_on(caddie: Run, recipe: str) -> None:
    answer = caddie("run", recipe)
    assert answer.code == 130
    assert answer.out == ""
    assert "finished stages are kept, the same command goes on from them" in answer.err


HELP = {
    "": ["caddie sweep slot", "CADDIE_HOME", "run", "sweep", "plan", "recipes", "ui", "audit", "record", "data"],
    "run": ["caddie run tiny", "--seeds", "--set", "--json", "PATH=VALUE", "--reuse", "--budget", "60usd", "--price"],
    "sweep": [
        *("caddie sweep slot", "--recipe", "--seeds", "--set", "--space", "--plan", "--no-record", "--non-record"),
        *("--race", "--confirm", "--search", "--trials", "PATH=LOW..HIGH"),
    ],
    "plan": ["Runs nothing", "--seeds", "--set", "--json", "--reuse", "--price", "caddie plan sweeps/slot_sweep.py"],
    "recipes": ["--json"],
    "ui": ["--port", "127.0.0.1", "5000"],
    "sync": ["caddie sync slot-tiny", "--baseline", "--json"],
    "status": ["--json", "Only reads"],
    "report": ["caddie report slot-tiny --out slot.html", "--price", "--json", "Only reads"],
    "logs": ["caddie logs slot-tiny:train:42 -f", "--follow", "--attempt", "--json"],
    "top": ["--once", "--json"],
    "record": ["assemble", "verify"],
    "record assemble": ["--out", "--pr", "--name", "--baseline-recipe", "--non-record", "--seeds"],
    "record verify": ["exit 1", "--json"],
    "data": ["prepare"],
    "data prepare": ["--corpus", "--vocab-size", "pd_mix_v1", "1024"],
}


@pytest.mark.parametrize("command", HELP)
def test_help_names_every_option_and_shows_how_to_start(caddie: Run, command: str) -> None:
    answer = caddie(*command.split(), "--help", recipes=RECIPES, sweeps=SWEEPS)
    assert answer.code == 0
    assert answer.err == ""
    text = " ".join(answer.out.split())
    assert [words for words in HELP[command] if words not in text] == []


def test_the_examples_in_the_help_are_commands_that_work(caddie: Run, documents_file: Path) -> None:
    examples = []
    for command in ("run", "sweep"):
        text = " ".join(caddie(command, "--help").out.split())
        found = re.search(r"Example: caddie (\w+) (\w+) (.*?) Arguments", text)
        assert found is not None, text
        examples.append((found[1], found[2], found[3].split()))
    assert {name for _, name, _ in examples} <= RECIPES.keys() | SWEEPS.keys()
    quick = ["--set", f"corpus={documents_file}", "--set", f"net.vocab_size={VOCAB}"]
    for command, name, options in examples:
        words = ["plan", name] if command == "run" else ["sweep", name, "--plan"]
        assert caddie(*words, *options, *quick, recipes=RECIPES, sweeps=SWEEPS).code == 0


def test_a_plan_lists_each_stage_once_with_its_key_and_runs_nothing(
    caddie: Run, home: Path, small_corpus: Corpus
) -> None:
    plan = caddie("plan", "small", "--seeds", "7,8", "--json").json()
    expected = {p.key: (str(p.stage), s) for s in SEEDS for p in plan_seed(small(), s, small_corpus)}
    assert plan.keys() >= {"name", "configs", "seeds", "to_run", "cached", "shared", "gpu_hours", "usd", "stages"}
    assert {row["key"]: (row["stage"], row["seed"]) for row in plan["stages"]} == expected
    assert all(row.keys() >= {"stage", "seed", "key", "cached", "because", "users"} for row in plan["stages"])
    assert not any(row["cached"] for row in plan["stages"])
    assert (plan["name"], plan["configs"], plan["seeds"]) == ("run-small", 2, [7, 8])
    assert (plan["to_run"], plan["cached"]) == (8, 0)
    assert list((home / "stages").iterdir()) == list((home / "attempts").iterdir()) == []


def test_a_plan_knows_what_is_finished_and_what_a_change_costs(caddie: Run, finished: FolderStore) -> None:
    def to_run(*words: str) -> dict[str, int]:
        plan = caddie("plan", "small", "--seeds", "7,8", "--json", *words).json()
        rows = [row["stage"] for row in plan["stages"] if not row["cached"]]
        assert len(rows) == plan["to_run"]
        return {stage: rows.count(stage) for stage in rows}

    assert to_run() == {}
    assert to_run("--set", "score.slot.lr=0.5") == {"score.slot": 2}
    assert to_run("--set", "train.steps=5") == {"train": 2, "pack": 2, "score.sliding": 2, "score.slot": 2}


def test_a_plan_for_people_says_the_same(caddie: Run, finished: FolderStore) -> None:
    answer = caddie("plan", "small", "--seeds", "7,8", "--set", "score.slot.lr=0.5")
    assert answer.code == 0
    assert "2 stages to run, 6 done" in answer.out
    plan = caddie("plan", "small", "--seeds", "7,8", "--set", "score.slot.lr=0.5", "--json").json()
    for row in plan["stages"]:
        (line,) = (line for line in answer.out.splitlines() if row["key"] in line)
        assert ("done" if row["cached"] else "to run") in line


def test_the_plan_of_a_sweep_is_what_the_sweep_would_run(caddie: Run, small_corpus: Corpus) -> None:
    sweep = caddie("sweep", "rates", "--plan", "--json").json()
    assert sweep["seeds"] == list(SEEDS)
    assert [row["stage"] for row in sweep["stages"]].count("score.slot") == 4
    assert (sweep["configs"], sweep["to_run"]) == (3, 2 * (3 + 2))
    assert caddie("plan", "rates", "--json").json() == sweep


def test_an_axis_of_the_command_line_counts_in_the_plan(caddie: Run, small_corpus: Corpus) -> None:
    words = ["--space", "score.slot.lr=0.1,0.2,0.3", "--space", "score.slot.steps=1,2", "--seeds", "5", "--json"]
    plan = caddie("sweep", "rates", "--plan", *words).json()
    assert (plan["configs"], plan["seeds"], plan["to_run"]) == (7, [5], 3 + 6)


def test_the_recipes_are_listed_with_every_setting_and_no_corpus_is_made_for_that(caddie: Run, home: Path) -> None:
    rows = {row["name"]: row for row in caddie("recipes", "--json", recipes=RECIPES).json()}
    assert rows.keys() == RECIPES.keys()
    assert rows["tiny"]["settings"] == flat_params(tiny())
    assert rows["tiny"]["parameters"] == sum(weight.numel() for weight in tiny().config.net.build().parameters())
    assert rows["tiny"]["scores"] == ["score.sliding", "score.slot"]
    assert (rows["core"]["artifact_cap_bytes"], rows["core"]["gang"]) == (16_000_000, "8 x cuda")
    assert rows["tiny"]["legality"] == {"score.sliding": "clean", "score.slot": "clean"}
    assert not (home / "corpora").exists()
    text = caddie("recipes", recipes=RECIPES).out
    assert "[slot]" in next(line for line in text.splitlines() if " pr1303 " in line)
    assert all(name in text and f"{row['parameters']:,}" in text for name, row in rows.items())


@pytest.mark.parametrize("size", [10, 279, 65_537])
def test_a_vocabulary_that_no_tokenizer_has_is_refused_before_anything_runs(caddie: Run, home: Path, size: int) -> None:
    answer = caddie("run", "small", "--set", f"net.vocab_size={size}")
    assert answer.code == 1
    assert f"vocab_size {size}: 256 bytes, 4 control ids and some pieces need 280 to 65536" in answer.err
    assert not (home / "attempts").exists()


def test_prepared_data_is_described_by_its_manifest(caddie: Run, home: Path, documents_file: Path) -> None:
    words = ["data", "prepare", "--corpus", str(documents_file), "--vocab-size", str(VOCAB)]
    answer = caddie(*words, "--json")
    made = answer.json()
    folder = Path(made.pop("folder"))
    assert folder.parent == home / "corpora"
    assert made == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert "byte table agrees" in answer.err
    again = caddie(*words)
    assert again.err == ""
    assert made["digest"] in again.out
    assert str(folder) in again.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "nowhere"], r"'nowhere' is neither embedded \(.*pd_mix_v1"),
        (["--vocab-size", "10"], "vocab_size 10"),
    ],
)
def test_data_that_cannot_be_prepared_fails_with_the_reason(caddie: Run, words: list[str], message: str) -> None:
    answer = caddie("data", "prepare", *words)
    assert answer.code == 1
    assert re.search(message, answer.err)


def test_a_finished_run_needs_no_cluster_and_its_numbers_survive_a_missing_mlflow(
    caddie: Run, finished: FolderStore, small_corpus: Corpus, measured: Callable[..., float]
) -> None:
    answer = caddie("run", "small", "--seeds", "7,8", "--json")
    assert answer.code == 0
    assert "MLflow is behind" in answer.err
    result = answer.json()
    assert [group["score"] for group in result["groups"]] == ["score.sliding", "score.slot"]
    for group, place in zip(result["groups"], (2, 3), strict=True):
        plans = {seed: plan_seed(small(), seed, small_corpus) for seed in SEEDS}
        values = {str(seed): measured(plan[place]) for seed, plan in plans.items()}
        assert {seed: one["val_bpb"] for seed, one in group["seeds"].items()} == values
        assert {one["status"] for one in group["seeds"].values()} == {"done"}
        assert group["mean_bpb"] == pytest.approx(np.mean(list(values.values())))
        assert group["sd_bpb"] == pytest.approx(np.std(list(values.values()), ddof=1))
        assert (group["n"], group["config"], group["digest"]) == (2, {}, small().digest())
        assert group["seeds"]["7"]["stages"]["train"] == plans[7][0].key


def test_a_finished_sweep_compares_its_configs_in_pairs(
    caddie: Run, finished: FolderStore, small_corpus: Corpus, measured: Callable[..., float]
) -> None:
    answer = caddie("sweep", "rates", "--no-record")
    assert answer.code == 0
    base = [measured(plan_seed(small(), seed, small_corpus)[2]) for seed in SEEDS]
    for overlay in RATES.grid():
        trial = [measured(plan_seed(small().at(overlay), seed, small_corpus)[3]) for seed in SEEDS]
        (row,) = (line for line in answer.out.splitlines() if line.startswith(f"│ lr={overlay['score.slot.lr']} "))
        assert f"{np.mean(trial):.4f} ± {np.std(trial, ddof=1):.4f}" in row
        assert f"{np.mean(np.subtract(trial, base)):+.4f}" in row
        assert "2/2" in row


def test_a_finished_run_is_in_mlflow_s_store_below_the_home(
    caddie: Run, home: Path, finished: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    answer = caddie("run", "small", "--seeds", "7,8", "--json")
    assert answer.code == 0
    assert answer.json()["name"] == "run-small"
    assert "MLflow is behind" not in answer.err
    database = sqlite3.connect(home / "mlflow.db")
    rows = database.execute("SELECT e.name, count(*) FROM runs r JOIN experiments e USING (experiment_id)").fetchall()
    database.close()
    assert rows == [("run-small", 2 * (1 + len(SEEDS)))]
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["home"], "nothing is left in the working folder"


def test_a_failed_seed_is_shown_with_its_error_word_for_word(
    home: Path, small_corpus: Corpus, finished: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    error = (
        "rank 0: RuntimeError: [enforce fail] index [bold]3[/bold] in [/tmp/x] of dict[str, int] (log: /tmp/[1].txt)"
    )
    contender = contend(small(), {}, SEEDS, small_corpus, Stage.SLOT, (Stage.SLOT,))
    group = lookup(contender, finished)
    group = replace(group, seeds={**group.seeds, 8: replace(group.seeds[8], error=error)})
    experiment = Experiment(name="x", seeds=SEEDS, contenders=(contender,))
    show_groups(Commands(SMALL, {}).out, experiment, [group])
    out = capsys.readouterr().out
    assert f"failed base, seed 8: {error}" in out
    assert "1/2" in out


@pytest.mark.parametrize(("count", "missing"), [(0, "train"), (1, "pack"), (2, "score.sliding"), (3, "score.slot")])
def test_a_record_of_unfinished_stages_is_refused_with_the_first_that_is_missing(
    caddie: Run, home: Path, small_corpus: Corpus, finish: Callable[..., Any], count: int, missing: str
) -> None:
    for planned in plan_seed(small(), 7, small_corpus)[:count]:
        finish(FolderStore(home), planned)
    answer = caddie("record", "assemble", "small", "--seeds", "7")
    assert answer.code == 1
    assert re.search(rf"seed 7 .*{re.escape(missing)}", answer.err)
    assert not (home / "records").exists()


def test_a_folder_that_is_no_record_does_not_verify(caddie: Run, tmp_path: Path) -> None:
    for folder in (tmp_path / "empty", tmp_path / "gone"):
        if folder.name == "empty":
            folder.mkdir()
        answer = caddie("record", "verify", str(folder))
        assert answer.code == 1
        assert "NOT ok" in answer.out
        verdict = caddie("record", "verify", str(folder), "--json")
        assert verdict.code == 1
        assert verdict.json()["ok"] is False
        assert len(verdict.json()["mismatches"]) > 0


def test_a_port_that_is_in_use_is_named(caddie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("the server was started"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = caddie("ui", "--port", str(port))
    assert answer.code == 1
    assert f"port {port} is in use" in answer.err
    assert "--port" in answer.err


def test_the_pages_are_served_to_this_machine_from_the_runs_store(
    caddie: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execvpe", lambda _, words, environ: started.append((words, environ)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert caddie("ui", "--port", str(port)).code == 0
    ((words, environ),) = started
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--backend-store-uri": f"sqlite:///{home}/mlflow.db",
        "--default-artifact-root": (home / "mlflow_artifacts").as_uri(),
    }
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_view_is_rebuilt_from_the_store_alone_and_doing_it_twice_changes_nothing(
    caddie: Run, home: Path, finished: FolderStore, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "MLflow is behind" in caddie("sweep", "rates", "--no-record", "--json").err
    assert not (home / "mlflow.db").exists()
    shutil.copy(empty_mlflow, home / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    made = caddie("sync", "--json").json()
    runs = 3 * (1 + len(SEEDS))
    counts = {"created": runs, "changed": 0, "unchanged": 0}
    assert made["experiments"] == [{"name": "rates-small", "configs": 3, **counts}]

    def dump() -> list[str]:
        database = sqlite3.connect(home / "mlflow.db")
        lines = list(database.iterdump())
        database.close()
        return lines

    before = dump()
    again = caddie("sync", "rates-small")
    assert again.code == 0
    assert f"0 created, 0 changed, {runs} as they were" in again.out
    assert dump() == before
    other = caddie("sync", "--baseline", "lr=0.2", "--json").json()["experiments"]
    assert other[0]["changed"] == 3
    assert caddie("sync", "--json").json()["experiments"][0]["unchanged"] == runs, "the choice is kept"


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nothing"], "no experiment 'nothing' was run here; there is none"), (["--baseline", "lr=9"], "'lr=9'")],
)
def test_a_view_of_what_is_not_there_is_refused_by_name(caddie: Run, words: list[str], message: str) -> None:
    answer = caddie("sync", *words)
    assert answer.code == 2
    assert message in answer.err


def test_a_view_of_nothing_needs_no_server(caddie: Run) -> None:
    assert "no experiment has been run here" in caddie("sync").out
    assert caddie("sync", "--json").json()["experiments"] == []


def test_the_status_says_how_far_each_experiment_is_and_who_leads(
    caddie: Run, home: Path, finished: FolderStore, small_corpus: Corpus, measured: Callable[..., float]
) -> None:
    caddie("sweep", "rates", "--no-record", "--json")
    (home / "experiments" / "strange.json").write_text("{}")
    answer = caddie("status", "--json")
    assert "strange.json" in answer.err
    (row,) = answer.json()["experiments"]
    means = {"base": np.mean([measured(plan_seed(small(), seed, small_corpus)[2]) for seed in SEEDS])}
    for overlay in RATES.grid():
        plans = [plan_seed(small().at(overlay), seed, small_corpus) for seed in SEEDS]
        means[f"lr={overlay['score.slot.lr']}"] = np.mean([measured(plan[3]) for plan in plans])
    best = min(means, key=lambda title: means[title])
    assert (row["name"], row["state"], row["seeds"]) == ("rates-small", "done", {"done": 6, "failed": 0, "total": 6})
    assert (row["best"]["config"], row["best"]["mean_bpb"]) == (best, pytest.approx(means[best]))
    text = caddie("status").out
    assert all(word in text for word in ("rates-small", "done", "6/6", best, "no stage runs now"))


def test_a_report_is_one_file_that_names_the_command_and_the_winner(
    caddie: Run, home: Path, finished: FolderStore, tmp_path: Path
) -> None:
    best = caddie("sweep", "rates", "--no-record", "--json").json()["summary"]["winner"]
    path = Path(caddie("report", "rates-small", "--json").json()["path"])
    assert path.parent == home / "reports"
    page = path.read_text(encoding="utf-8")
    assert best["config"] in page
    assert f"{best['mean_bpb']:.4f}" in page
    assert "caddie sweep rates --no-record --json" in page
    other = tmp_path / "other.html"
    said = caddie("report", path.stem, "--out", str(other)).out
    assert "other.html" in said
    assert other.read_text(encoding="utf-8") == page
    refused = caddie("report", "rates-big")
    assert refused.code == 2
    assert "no experiment 'rates-big' was run here; there is rates-small" in refused.err


def test_a_status_before_anything_was_run_makes_nothing(caddie: Run, home: Path) -> None:
    assert "caddie sweep slot" in caddie("status").out
    assert caddie("status", "--json").json() == {"experiments": [], "running": []}
    assert not home.exists()


def test_a_script_of_a_sweep_is_planned_as_it_would_run(caddie: Run, small_corpus: Corpus, tmp_path: Path) -> None:
    script = tmp_path / "rates_sweep.py"
    script.write_text('main(["sweep", "rates", "--seeds", "5", *sys.argv[1:]])\n', encoding="utf-8")
    plan = caddie("sweep", "rates", "--seeds", "5", "--plan", "--json").json()
    assert caddie("plan", str(script), "--json").json() == plan
    assert caddie("plan", "--json", str(script)).json() == plan
    other = tmp_path / "other.py"
    other.write_text("main([1])\n", encoding="utf-8")
    assert "it runs no sweep" in caddie("plan", str(other)).err


@pytest.mark.parametrize("path", sorted(SWEEP_SCRIPTS), ids=lambda path: path.name)
def test_every_sweep_s_script_names_a_sweep(path: Path) -> None:
    words = script_words(["plan", str(path), "--json"])
    assert words[0] == "sweep"
    assert words[1] in SWEEPS
    assert words[-2:] == ["--plan", "--json"]


def test_a_price_counts_in_dollars_only_and_the_environment_may_set_it(
    caddie: Run, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, double = (caddie("plan", "small", "--json", *words).json() for words in ([], ["--price", "40"]))
    assert usual["usd"] == pytest.approx(usual["gpu_hours"] * 20 / 8)
    assert (double["gpu_hours"], double["usd"]) == (usual["gpu_hours"], pytest.approx(2 * usual["usd"]))
    monkeypatch.setenv("CADDIE_NODE_USD_PER_HOUR", "40")
    assert caddie("plan", "small", "--json").json() == double
    monkeypatch.setenv("CADDIE_NODE_USD_PER_HOUR", "a lot")
    answer = caddie("plan", "small")
    assert (answer.code, "CADDIE_NODE_USD_PER_HOUR is 'a lot'" in answer.err) == (2, True)


def test_a_reused_training_is_in_the_plan_in_the_result_s_keys_and_in_mlflow_and_in_no_record(
    caddie: Run,
    home: Path,
    finished: FolderStore,
    small_corpus: Corpus,
    finish: Callable[..., Any],
    empty_mlflow: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(empty_mlflow, home / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    old, own = plan_seed(small(), 7, small_corpus)[0], plan_seed(small().at({"train.steps": 5}), 7, small_corpus)[0]
    words = ["small", "--seeds", "7", "--set", "train.steps=5", "--set", "score.slot=none", "--reuse", old.key]
    plan = caddie("plan", *words, "--json").json()
    assert [row["because"] for row in plan["stages"] if row["stage"] == "train"] == [
        f"reused for {own.key}, although train.steps 200 -> 5"
    ]
    assert (plan["to_run"], plan["cached"]) == (0, 3), "the recipe reads nothing else of training"
    result = caddie("run", *words, "--json")
    assert result.code == 0
    (seed,) = (group["seeds"]["7"] for group in result.json()["groups"])
    assert seed["stages"]["train"] == old.key
    database = sqlite3.connect(home / "mlflow.db")
    rows = database.execute("SELECT value FROM tags WHERE key = 'caddie.reused'").fetchall()
    database.close()
    line = f"{old.key} of seed 7 stands for {own.key}"
    assert rows == [(line,)]
    assert [group["reused"] for group in result.json()["groups"]] == [[line]]
    assert f"reused    {line}" in caddie("run", *words).out
    (note,) = (home / "experiments").glob("*.json")
    assert [config["reused"] for config in json.loads(note.read_text(encoding="utf-8"))["configs"]] == [line]
    refused = caddie("sweep", "rates", "--seeds", "7", "--set", "train.steps=5", "--reuse", old.key)
    assert refused.code == 2
    assert "give --no-record" in refused.err


def test_the_closing_lines_say_who_won_what_it_took_and_where_to_look(
    caddie: Run, finished: FolderStore, small_corpus: Corpus
) -> None:
    summary = caddie("sweep", "rates", "--no-record", "--json").json()["summary"]
    assert (summary["stages"], summary["usd"], summary["record"]) == ({"computed": 0, "cached": 10}, 0, None)
    lines = caddie("sweep", "rates", "--no-record", "--price", "16").out.splitlines()
    closing = lines[next(i for i, line in enumerate(lines) if line.startswith("winner")) :]
    assert len(closing) <= 8
    assert closing[0].endswith(f"{summary['winner']['score']}, {summary['winner']['config']}")
    assert [line.split()[0] for line in closing] == ["winner", "vs", "stages", "cost", "MLflow"]
    assert "at 16 USD a node-hour" in closing[3]
    run = caddie("run", "small", "--seeds", "7,8", "--json").json()
    assert run["summary"]["winner"]["n"] == 2


def test_a_webhook_is_told_of_a_sweep_and_a_dead_one_changes_nothing(
    caddie: Run,
    finished: FolderStore,
    small_corpus: Corpus,
    finish: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for overlay in RATES.grid():  # so that no gang is started for the audit of what is then refused
        finish(finished, plan_audit(small().at(overlay), small_corpus, Stage.SLOT), {})
    with hook_server() as (url, told):
        monkeypatch.setenv("CADDIE_WEBHOOK_URL", url)
        answer = caddie("sweep", "rates", "--no-record", "--json")
        refused = caddie("sweep", "rates", "--json")
        unreached = caddie("run", "small", "--seeds", "99", "--json")
    assert [(one["event"], one["experiment"]) for one in told] == [
        ("began", "rates-small"),
        ("finished", "rates-small"),
        ("began", "rates-small"),
        ("failed", "rates-small"),
        ("began", "run-small"),
        ("failed", "run-small"),
    ]
    assert told[1]["mean_bpb"] == answer.json()["summary"]["winner"]["mean_bpb"]
    assert (refused.code, unreached.code) == (1, 1)
    assert told[3]["mean_bpb"] == told[1]["mean_bpb"], "the record was refused after it was measured"
    assert "RAY_ADDRESS is 'nobody'" in told[5]["errors"][0]
    dead = caddie("sweep", "rates", "--no-record", "--json")
    assert (dead.code, dead.json()["groups"]) == (0, answer.json()["groups"])
    lines = [line for line in dead.err.splitlines() if line.startswith("webhook: ")]
    assert len(lines) == 2, "one when it begins, one when it ends"
    assert "secret" not in dead.err


def test_a_log_is_found_by_what_the_status_prints(
    caddie: Run, home: Path, finished: FolderStore, small_corpus: Corpus
) -> None:
    caddie("sweep", "rates", "--no-record", "--json")
    train = plan_seed(small(), 7, small_corpus)[0]
    for what in (train.key, train.key[:12], "rates-small:train:7", "train:7"):
        answer = caddie("logs", what)
        assert (answer.code, answer.out) == (0, "train of seed 7\n")
        assert "attempt 1, done" in answer.err
    document = caddie("logs", "train:7", "--json").json()
    assert (document["key"], document["experiment"], document["lines"]) == (
        train.key,
        "rates-small",
        ["train of seed 7"],
    )
    assert caddie("logs", "rates-small", "-f").out.startswith(tuple("tps")), "nothing runs: as without -f"
    slot = plan_seed(small(), 9, small_corpus)[0]
    attempt = finished.begin(slot.key)
    (attempt / "log.txt").write_text("step:1/9\n")
    (attempt / "out").mkdir()
    failure = {"rank": 1, "error": "ValueError: no", "traceback": "Traceback\n  ValueError: no [red]\n"}
    (attempt / "out" / "failure.1.json").write_text(json.dumps(failure))
    with finished.lock(slot.key):
        assert f"running: {slot.key[:12]}" in caddie("status").out
        failed = caddie("logs", slot.key[:12])
    assert failed.out == "step:1/9\nrank 1 failed:\nTraceback\n  ValueError: no [red]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nobody"], "'nobody': no log for 'nobody'; there is experiment rates-small"),
        (["train:7", "--attempt", "3"], "has no attempt 3; there is 1"),
        (["-f", "--json"], "give it without --json"),
    ],
)
def test_a_log_that_is_not_there_is_refused_with_what_is(
    caddie: Run, finished: FolderStore, small_corpus: Corpus, words: list[str], message: str
) -> None:
    caddie("sweep", "rates", "--no-record", "--json")
    answer = caddie("logs", *words)
    assert answer.code == 2
    assert message in answer.err


def test_logs_and_top_before_anything_was_run_make_nothing(caddie: Run, home: Path) -> None:
    assert "caddie sweep slot" in caddie("logs").err
    assert "caddie sweep slot" in caddie("top").out
    assert caddie("top", "--json").json() == {"experiments": [], "running": [], "node_usd_per_hour": 20}
    assert not home.exists()


def test_top_is_plain_where_there_is_no_terminal(
    caddie: Run, home: Path, finished: FolderStore, small_corpus: Corpus
) -> None:
    caddie("sweep", "rates", "--no-record", "--json")
    notes = NoteFolder(home)
    (note,) = notes.read()[0]
    train = plan_seed(small().at({"train.steps": 5}), 7, small_corpus)[0]
    attempt = finished.begin(train.key)
    (attempt / "log.txt").write_text("step:50/200 train_loss:4.7470 train_time:16000ms step_avg:3ms\n")
    with notes.hold(note), finished.lock(train.key):
        shown = caddie("top").out
        assert shown == caddie("top", "--once").out
        (row,) = caddie("top", "--json").json()["running"]
    assert "\x1b" not in shown
    assert "rates-small: 6/6 seeds, 10/10 stages" in shown
    assert all(word in shown for word in (train.key[:12], "50/200", "loss 4.7470"))
    assert (row["key"], row["step"], row["experiment"]) == (train.key, "50/200", None)


def test_leaving_what_only_looks_says_nothing(
    caddie: Run, home: Path, finished: FolderStore, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    caddie("sweep", "rates", "--no-record", "--json")
    train = plan_seed(small(), 9, small_corpus)[0]
    (finished.begin(train.key) / "log.txt").write_text("step:1/9\n")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.watching.time.sleep", interrupt)
    with finished.lock(train.key):
        answer = caddie("logs", train.key, "-f")
    assert (answer.code, answer.err) == (130, "")
    assert answer.out == f"==> {train.key[:12]}, attempt 1\nstep:1/9\n"


WIDE = replace(
    RATES,
    space={
        "score.slot.lr": Range(low=0.001, high=0.1, log=True),
        "score.slot.steps": (4, tiny().config.score.slot.steps),
    },
    search=Search(how="tpe", trials=7),
)


def finish_search(store: FolderStore, finish: Callable[..., Any], rounds: int) -> None:
    """Finish so many rounds of the wide sweep, as a driver would, and the base."""
    commands = Commands(SMALL, {"rates": WIDE})
    experiment = commands.sweep_of(WIDE, small(), None)
    for _ in range(rounds):
        for contender in known(experiment, store).contenders:
            for plan in contender.plans.values():
                for planned in plan:
                    if store.find(planned.key) is None:
                        finish(store, planned)


def test_a_search_s_plan_shows_the_first_round_and_says_what_is_not_known_yet(
    caddie: Run, home: Path, small_corpus: Corpus
) -> None:
    words = ["--search", "tpe", "--trials", "7", "--space", "score.slot.lr=0.001..0.1:log", "--space"]
    words.append(f"score.slot.steps=4,{tiny().config.score.slot.steps}")
    plan = caddie("sweep", "rates", "--plan", "--json", *words).json()
    assert (plan["configs"], plan["not_proposed_yet"]["trials"]) == (1 + 4, 3)
    slot = [row for row in plan["stages"] if row["stage"] == "score.slot"]
    assert plan["not_proposed_yet"]["gpu_hours"] == pytest.approx(3 / 4 * sum(row["gpu_hours"] for row in slot))
    assert plan["gpu_hours"] == pytest.approx(
        sum(row["gpu_hours"] for row in plan["stages"]) + plan["not_proposed_yet"]["gpu_hours"]
    )
    assert plan == caddie("plan", "rates", "--json", sweeps={"rates": WIDE}).json()
    own = plan_seed(small().at({"score.slot.lr": 0.008}), 7, small_corpus)[-1].key
    assert (tiny().config.score.slot.lr, own in {row["key"] for row in slot}) == (0.008, True), (
        "the base's own comes first"
    )
    told = " ".join(caddie("sweep", "rates", "--plan", *words).out.split())
    assert (
        "search 3 of 7 trials aren't known before others have finished; they are counted as what those listed" in told
    )
    assert list((home / "stages").iterdir()) == []


def test_a_search_goes_on_from_what_is_finished_and_a_finished_one_needs_no_cluster(
    caddie: Run, home: Path, small_corpus: Corpus, finish: Callable[..., Any]
) -> None:
    store = FolderStore(home)
    finish_search(store, finish, 1)
    sweeps = {"rates": WIDE}
    plan = caddie("plan", "rates", "--json", sweeps=sweeps).json()
    assert (plan["configs"], plan["to_run"], plan["not_proposed_yet"]["trials"]) == (1 + 7, 2 * 3, 0)
    stopped = caddie("sweep", "rates", "--no-record", sweeps=sweeps)
    assert stopped.code == 1, "there is no cluster"
    assert "nobody" in stopped.err
    finish_search(store, finish, 1)
    answer = caddie("sweep", "rates", "--no-record", "--json", sweeps=sweeps)
    assert answer.code == 0, answer.err
    result = answer.json()
    assert result["search"] == {"how": "tpe", "trials": 7, "proposed": 7}
    assert [group["n"] for group in result["groups"]] == [2] * 8
    assert result["groups"][1]["config"] == {"score.slot.lr": 0.008, "score.slot.steps": tiny().config.score.slot.steps}
    again = caddie("sweep", "rates", "--no-record", "--json", sweeps=sweeps).json()
    assert {**again, "summary": 0} == {**result, "summary": 0}
    assert len(list((home / "experiments").glob("*.json"))) == 1
    assert caddie("status", "--json").json()["experiments"][0]["seeds"] == {"done": 16, "failed": 0, "total": 16}


def test_a_search_takes_no_reuse(caddie: Run, finished: FolderStore, small_corpus: Corpus) -> None:
    train = plan_seed(small(), 7, small_corpus)[0].key
    words = ["sweep", "rates", "--search", "tpe", "--trials", "2", "--set", "train.steps=5", "--no-record"]
    answer = caddie(*words, "--reuse", train)
    assert answer.code == 2
    assert "--reuse: with --search tpe nobody knows yet" in answer.err


def test_a_race_s_plan_counts_the_confirming_and_a_reuse_holds_for_the_seeds_that_confirm_too(
    caddie: Run, small_corpus: Corpus, home: Path, finish: Callable[..., Any]
) -> None:
    sweeps = {"rates": replace(RATES, racing=Racing(confirm=(21, 22)))}
    plan = caddie("plan", "rates", "--json", sweeps=sweeps).json()
    assert plan == caddie("sweep", "rates", "--plan", "--json", sweeps=sweeps).json()
    assert plan["confirming"] == 2 * 4
    assert "8 stages confirm the winner" in " ".join(caddie("plan", "rates", sweeps=sweeps).out.split())
    old = {seed: plan_seed(small(), seed, small_corpus)[0] for seed in (7, 21)}
    for planned in old.values():
        finish(FolderStore(home), planned)
    words = ["plan", "rates", "--set", "train.steps=5", "--json"]
    reuse = [word for planned in old.values() for word in ("--reuse", planned.key)]
    rows = caddie(*words, *reuse, sweeps=sweeps).json()["stages"]
    reused = {row["seed"]: row["key"] for row in rows if "stands_for" in row}
    assert reused == {seed: planned.key for seed, planned in old.items()}
    answer = caddie(*words, *reuse, sweeps={"rates": RATES})
    assert f"--reuse {old[21].key}: it is of seed 21, and the plan has train of seeds 7, 8" in answer.err
