"""One place on disk in which runs are struck: home, corpus, reference, cluster, and the command that is run again and
again. Paths are the same in every episode, because a record's code names its corpus."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from service.faults import PLAN
from tests.chaos.cluster import BIN, GANG, OURS, Cluster, adopt_orphans, below, below_all, wait_until
from tests.chaos.views import runs_of
from tests.mini_corpus import write_documents

REPO = Path(__file__).resolve().parents[2]
LIMIT_S = 420.0
"""For one command, on a machine that others use, too."""
LEFT_S = 45.0
"""Within which every process of a command that has ended must be gone."""
SILENCE_S = 30
"""After which a rank counts as hung, once it has beaten."""
VAL_LETTERS = 1500
"""Of the one validation document: so few that an audit makes all its flips within its CPU time, wherever it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended."""

    exit_code: int
    """Negative: the signal that killed it; 124: it did not end, and was killed."""
    out: str
    err: str
    took_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What is finished, and how often each stage was tried."""

    stages: dict[str, str]
    """Key -> digest of all its files, clocks included."""
    tries: dict[str, int]


class World:
    """Made once; ``close`` ends its cluster."""

    def __init__(self, folder: Path, seeds: str = "1,2", others: Sequence[int] = ()) -> None:
        """``others`` are processes below this one that aren't ours to look at, with all below them."""
        adopt_orphans()
        self.others = others
        self.folder, self.disk = folder, folder / "disk"
        self.home, self.reference = self.disk / "home", folder / "reference"
        self.documents, self.plan = folder / "mini.jsonl", folder / "strikes.json"
        self.said, self.source = folder / "said", folder / "source"
        self.cluster: Cluster | None = None
        self.known: set[int] = set()
        """Our own children, which somebody waits for."""
        self.commands = 0
        for place in (self.disk, self.said):
            place.mkdir(parents=True, exist_ok=True)
        sets = {"corpus": self.documents, "net.layers": 1, "train.steps": 12, "train.log_every": 4}
        sets |= {"budget.silence_s": SILENCE_S}
        self.words = ["sweep", "slot", "--seeds", seeds, "--non-record", "--json"]
        self.words += ["--space", "score.slot.steps=2", "--space", "score.slot.lr=0.004,0.012"]
        self.words += [word for path, value in sets.items() for word in ("--set", f"{path}={value}")]
        self.arm([])

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CADDIE_", "MLFLOW_"))}
        own = {"CADDIE_HOME": str(self.home), PLAN: str(self.plan), "PATH": f"{BIN}:{os.environ['PATH']}"}
        return kept | own

    # The reference.

    def prepare(self) -> None:
        """The corpus and an undisturbed run, unless they are there; then the cluster is up, too."""
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self.cluster = Cluster(self.folder / "ray", self.environment)
        if not (self.folder / "reference.json").exists():
            self._copy_source()
            write_documents(self.documents, VAL_LETTERS)
            shutil.rmtree(self.home, ignore_errors=True)
            done = self.run()
            if done.exit_code != 0:
                raise RuntimeError(f"the undisturbed run failed: {done.err[-3000:]}")
            shutil.rmtree(self.reference, ignore_errors=True)
            shutil.copytree(self.home, self.reference)
            self._empty_mlflow()
            hits = sorted({path.name.rpartition(".")[0] for path in self.hits().glob("*.*")})
            shown, _ = runs_of(self.home / "mlflow.db")
            told = {"groups": json.loads(done.out)["groups"], "hits": hits, "mlflow": shown}
            (self.folder / "reference.json").write_text(json.dumps(told), encoding="utf-8")
        self.told: dict[str, Any] = json.loads((self.folder / "reference.json").read_text(encoding="utf-8"))

    def _copy_source(self) -> None:
        """Our own copy of the source, outside of git: who edits or commits meanwhile changes no run of ours."""
        shutil.rmtree(self.source, ignore_errors=True)
        for package in ("model", "service", "sweeps"):
            kept = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPO / package, self.source / package, ignore=kept)

    def _empty_mlflow(self) -> None:
        """A store of MLflow with its tables and without runs: to make one takes seconds."""
        script = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
        path = self.folder / "empty.db"
        environment = self.environment | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run(
            [sys.executable, "-c", script, f"sqlite:///{path}"],
            env=environment,
            cwd=self.folder,
            check=True,
            capture_output=True,
        )

    @property
    def keys(self) -> list[str]:
        """Every stage of the reference."""
        return sorted(path.name for path in (self.reference / "stages").iterdir())

    # Commands.

    def run(self, *, local: bool = False, **environment: str) -> Ended:
        """Run the command to its end."""
        return self.wait(self.start(local=local, **environment))

    def start(self, *, local: bool = False, **environment: str) -> subprocess.Popen[bytes]:
        """Begin the command, on our cluster or on a local Ray of its own."""
        self.commands += 1
        joined = {} if local or self.cluster is None else self.cluster.joined
        stem = self.said / f"{self.commands % 20}"
        with open(f"{stem}.out", "wb") as out, open(f"{stem}.err", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweeps", *self.words],
                cwd=self.source,
                env=self.environment | joined | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.known.add(process.pid)
        self.stems = {**getattr(self, "stems", {}), process.pid: (stem, time.monotonic())}
        return process

    def wait(self, process: subprocess.Popen[bytes], meanwhile: Callable[[], None] = lambda: None) -> Ended:
        """Wait for a command; ``meanwhile`` is called ten times a second. One that never ends is killed."""
        stem, began = self.stems[process.pid]
        while process.poll() is None and time.monotonic() - began < LIMIT_S:
            meanwhile()
            time.sleep(0.1)
        over = process.poll() is not None
        if not over:
            process.kill()
            process.wait()
        out, err = (Path(f"{stem}.{end}").read_text(encoding="utf-8", errors="replace") for end in ("out", "err"))
        code = process.returncode if over else 124
        return Ended(exit_code=code, out=out, err=err, took_s=time.monotonic() - began)

    def left(self) -> list[str]:
        """Command lines of who is still there ``LEFT_S`` after a command has ended."""
        return [] if wait_until(lambda: not self._ours(), LEFT_S, 0.2) else list(self._ours().values())

    def _ours(self) -> dict[int, str]:
        self._reap()
        shared = self.cluster.shared if self.cluster else set()
        known = below_all(self.others) | (set(self.cluster.nodes) if self.cluster else set())
        return {
            pid: line
            for pid, line in below().items()
            if pid not in known and any(word in line for word in (GANG if pid in shared else OURS))
        }

    def _reap(self) -> None:
        """Bury the orphans that have come to us."""
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error, OSError):
                if child.status() == psutil.STATUS_ZOMBIE and child.pid not in self.known:
                    os.waitpid(child.pid, os.WNOHANG)

    # Strikes by name.

    def arm(self, strikes: list[dict[str, object]]) -> None:
        """The list of strikes from now on; hits are counted anew."""
        shutil.rmtree(self.hits(), ignore_errors=True)
        self.plan.write_text(json.dumps(strikes), encoding="utf-8")

    def hits(self) -> Path:
        """Folder of the counts of hits."""
        return self.plan.with_suffix(".hits")

    def struck(self) -> int:
        """How many of the armed strikes have fallen."""
        return len(list(self.hits().glob("*.struck")))

    # What is there.

    def snapshot(self) -> Snapshot:
        """What is finished, to the last byte, and how often each stage was tried."""
        stages = {}
        for folder in sorted((self.home / "stages").glob("*")):
            total = hashlib.sha256()
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
            stages[folder.name] = total.hexdigest()
        tries = {folder.name: len(list(folder.iterdir())) for folder in (self.home / "attempts").glob("*")}
        return Snapshot(stages=stages, tries=tries)

    def scratch(self) -> list[str]:
        """Files of a half-done write in what is kept."""
        hidden = re.compile(r"\.(?!(lock|view)$).*(?<!\.running)")
        folders = ("stages", "records", "experiments", "corpora", "nodes", "locks")
        found = (path for folder in folders for path in (self.home / folder).rglob("*"))
        return [str(path.relative_to(self.home)) for path in found if hidden.fullmatch(path.name)]

    def close(self) -> None:
        """End the cluster."""
        if self.cluster is not None:
            self.cluster.close()
            self.cluster = None
