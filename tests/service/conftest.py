"""What the service's tests share: a recipe, a corpus, documents, finished stages, and an engine without Ray."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from model.data.shards import Corpus, open_corpus
from model.report import StageReport, file_ref, write_report
from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.errors import StageFailed
from service.money import Ledger
from service.ports import Engine, Plan
from service.results import SeedResult
from service.spec import GangShape, RunSpec
from service.stages import PlannedStage, made_of
from sweeps.recipes.tiny import tiny

ONES = {Stage.TRAIN: "parameters", Stage.PACK: "model_bytes", Stage.SLIDING: "val_bpb", Stage.SLOT: "val_bpb"}


@pytest.fixture
def spec() -> RunSpec:
    """The tiny recipe."""
    return tiny()


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> Corpus:
    return open_corpus(corpus_folder)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "home")


def number_of(planned: PlannedStage) -> float:
    """What the stage "measures" here: a number between 1 and 2 that its key alone decides."""
    return 1 + int(hashlib.sha256(planned.key.encode()).hexdigest()[:6], 16) / 16**6


def finish_stage(store: FolderStore, planned: PlannedStage, metrics: Mapping[str, float] | None = None) -> StageReport:
    """Put a finished stage into the store by its own way: an attempt with log, output and report, then publish."""
    attempt = store.begin(planned.key)
    out = attempt / "out"
    out.mkdir()
    (attempt / "log.txt").write_text(f"{planned.stage} of seed {planned.seed}\n", encoding="utf-8")
    (out / "output.bin").write_bytes(planned.key.encode() * 10)
    measured = {ONES[planned.stage]: number_of(planned)} if metrics is None else metrics
    report = StageReport(
        stage=str(planned.stage),
        seed=planned.seed,
        elapsed_s=number_of(planned) * 10,
        metrics=measured,
        outputs={"output.bin": file_ref(out, "output.bin")},
    )
    write_report(out, report)
    return store.publish(planned.key, attempt, made_of(planned))


class MemoryEngine:
    """An Engine that computes in this process, one stage after the other, and remembers what it was asked for."""

    def __init__(self, store: FolderStore, failing: Mapping[tuple[Stage, int], StageFailed]) -> None:
        self.store, self.failing = store, failing
        self.computed: list[tuple[Stage, int]] = []
        self.errors: dict[str, str] = {}
        self.seeds_started = 0
        self.trials: list[list[int]] = []
        self.gangs: list[GangShape] = []
        self.measure: Callable[[PlannedStage], Mapping[str, float] | None] = lambda _: None
        """What a stage measures; None: its usual number."""
        self.ledger: Ledger | None = None
        self.sessions = self.closed = 0

    def check(self, gang: GangShape) -> None:
        self.gangs.append(gang)

    def start_seed(self, plan: Plan) -> SeedResult:
        self.seeds_started += 1
        return self._chain(plan)

    def wait(self, handles: Sequence[SeedResult]) -> list[SeedResult]:
        return list(handles)

    def outcome(self, plan: Plan) -> SeedResult:
        error = next((self.errors[planned.key] for planned in plan if planned.key in self.errors), "")
        return SeedResult(seed=plan[0].seed, plan=plan, error=error)

    def account(self) -> Ledger | None:
        return self.ledger

    def run_trials(self, name: str, plans: Sequence[Sequence[Plan]]) -> None:
        for seeds in plans:
            self.trials.append([])
            for plan in seeds:
                self.trials[-1].append(plan[0].seed)
                if self._chain(plan).error:
                    break

    @contextlib.contextmanager
    def session(self) -> Iterator[Engine]:
        """What an EngineFactory makes."""
        self.sessions += 1
        try:
            yield self
        finally:
            self.closed += 1

    @property
    def counts(self) -> Counter[Stage]:
        return Counter(stage for stage, _ in self.computed)

    def _chain(self, plan: Plan) -> SeedResult:
        reports: dict[Stage, StageReport] = {}
        for planned in plan:
            report = self.store.find(planned.key)
            if report is None:
                self.computed.append((planned.stage, planned.seed))
                failure = self.failing.get((planned.stage, planned.seed))
                if failure is not None:
                    self.errors[planned.key] = str(failure)
                    return SeedResult(seed=planned.seed, plan=plan, reports=reports, error=str(failure))
                report = finish_stage(self.store, planned, self.measure(planned))
            reports[planned.stage] = report
        return SeedResult(seed=plan[0].seed, plan=plan, reports=reports)


EngineMaker = Callable[..., MemoryEngine]
Finish = Callable[..., StageReport]


@pytest.fixture
def engine(store: FolderStore) -> EngineMaker:
    """``engine(failing={(Stage.TRAIN, 42): StageFailed(...)})``: an engine into ``store``."""

    def make(failing: Mapping[tuple[Stage, int], StageFailed] | None = None) -> MemoryEngine:
        return MemoryEngine(store, failing or {})

    return make


@pytest.fixture(scope="session")
def finish() -> Finish:
    """``finish(store, planned, metrics=None)``: publish a stage as if it had run."""
    return finish_stage


@pytest.fixture(scope="session")
def measured() -> Callable[[PlannedStage], float]:
    """The number that ``finish`` gives a stage."""
    return number_of


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's store in SQLite in which nothing has been written yet, to be copied: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


PROSE = (
    "the wind came from left over water and a ball fell into tall grass where nobody looked for it again because rain "
    "had begun to fall on every green hill between old stone walls while players walked home talking of 1934 strokes "
    "café naïve Ærø 漢字 score paper morning evening quickly slowly carried counted promised returned measured learned"
)


@pytest.fixture(scope="session")
def document_rows() -> list[dict[str, str]]:
    """120 documents for training and 12 for validation, with digits, accents and characters of three bytes."""
    dice, words = random.Random(0), PROSE.split()
    rows = []
    for number in range(132):
        sentences = [" ".join(dice.choices(words, k=dice.randint(5, 14))).capitalize() + "." for _ in range(6)]
        rows.append({"split": "val" if number % 11 == 10 else "train", "text": " ".join(sentences)})
    return rows


@pytest.fixture(scope="session")
def documents_file(document_rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``document_rows`` as a file of JSON lines."""
    path = tmp_path_factory.mktemp("documents") / "walks.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in document_rows), encoding="utf-8")
    return path
