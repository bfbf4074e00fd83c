"""The one place that joins the service's ports to Ray, MLflow and the file system."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from model.data.shards import Corpus
from model.report import StageReport
from service.adapters.local_gang import run_here
from service.adapters.locks import file_lock
from service.adapters.nodes_fs import NodeFolder
from service.adapters.notes_fs import NoteFolder
from service.adapters.ray_token import use_own_token
from service.adapters.store_fs import FolderStore
from service.adapters.stores import StoreAt, open_notes, open_store
from service.adapters.webhook import Webhook
from service.corpus.documents import find_documents
from service.corpus.fetch import Hub
from service.corpus.fineweb import is_fineweb, open_fineweb
from service.corpus.prepare import Progress, prepare
from service.errors import CorpusError
from service.figures import get_ready
from service.money import Ledger
from service.ports import Announcer, Engine, Sampler, StageStore, Tracker
from service.settings import Settings
from service.source import ROOT
from service.space import Space
from service.spec import RunSpec
from service.stages import PlannedStage


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Which version of the source produced something."""

    git_sha: str
    """Empty outside a checkout."""
    dirty: bool


class Wiring:
    """Builds each adapter when it is first needed: Ray and MLflow take seconds to import."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.at = StoreAt(home=settings.home, url=settings.store_url)

    def store(self) -> StageStore:
        """The stage store: below the home folder, or where CADDIE_STORE says."""
        return self._store

    @functools.cached_property
    def _store(self) -> FolderStore:
        return open_store(self.at)

    @functools.cached_property
    def _notes(self) -> NoteFolder:
        return open_notes(self.at)

    def corpus(self, spec: RunSpec, progress: Progress) -> Corpus:
        """The corpus of ``spec`` where every node finds it: the prepared one, made if it isn't there, or a fetched one.

        Raises:
            CorpusError: it can't be made, isn't fetched, or has another vocabulary than the network.
        """
        vocab_size = spec.config.net.vocab_size
        if is_fineweb(spec.corpus):
            corpus = open_fineweb(spec.corpus, self.settings.corpora)
            if corpus.vocab_size != vocab_size:
                size = corpus.vocab_size
                raise CorpusError(f"{spec.corpus} has {size} tokens, net.vocab_size is {vocab_size}: set it to {size}")
        else:
            corpus = prepare(find_documents(spec.corpus), vocab_size, self.settings.corpora, progress)
        if self.at.url:
            self._store.share(corpus)
        return corpus

    def hub(self) -> Hub:
        """Where corpora are fetched from."""
        from service.adapters.hub import HuggingFaceHub

        return HuggingFaceHub(self.settings.hub_endpoint)

    def engine(self, ledger: Ledger | None = None) -> AbstractContextManager[Engine]:
        """Ray: the cluster of RAY_ADDRESS, or one of our own; it launches what ``ledger`` pays."""
        self._before_ray()
        from service.adapters.ray_engine import ray_engine

        return ray_engine(self.settings.ray_address, self.at, ledger, self.settings.checks)

    def sampler(self, space: Space, seed: int, first: Mapping[str, Any] | None) -> Sampler:
        """Optuna's TPE over ``space``, which proposes ``first`` first; it starts no Ray."""
        self._before_ray()
        from service.adapters.optuna_search import OptunaSampler

        return OptunaSampler(space, seed, first)

    def _before_ray(self) -> None:
        if self.settings.ray_address is None and "ray" not in sys.modules:
            use_own_token(self.settings.home)

    def run_here(self, planned: PlannedStage) -> StageReport:
        """The report of a stage that this machine computes itself, or has computed."""
        return run_here(planned, self._store)

    def tracker(self) -> Tracker:
        """MLflow."""
        from service.adapters.mlflow import MlflowTracker

        return MlflowTracker(self.settings.mlflow_uri, self.settings.mlflow_artifacts)

    def tracker_soon(self) -> None:
        """Import MLflow and what draws its figures, and open its store, beside what else goes on: together they take
        seconds, once stages are over. Whatever is wrong with it shows when it is needed."""

        def warm() -> None:
            with contextlib.suppress(Exception):
                self.tracker().ready()
                get_ready()

        threading.Thread(target=warm, daemon=True, name="mlflow").start()

    def nodes(self) -> NodeFolder:
        """What is known of the cluster's nodes."""
        return NodeFolder(self.settings.home)

    def announcer(self, tell: Callable[[str], None]) -> Announcer | None:
        """The webhook; None where none is set. What goes wrong with it goes to ``tell``."""
        return Webhook(self.settings.webhook_url, tell) if self.settings.webhook_url else None

    def alone(self, what: str) -> AbstractContextManager[bool]:
        """Waits until no other process of this home holds ``what``, and holds it while the block runs."""
        folder = self.settings.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return file_lock(folder / what, wait=True)

    def notes(self) -> NoteFolder:
        """Notes of the experiments that were run."""
        return self._notes


def provenance() -> Provenance:
    """The commit of the checkout we run from, and whether it has changes."""

    def git(*words: str) -> str:
        if shutil.which("git") is None:  # as in the images of docker/
            return ""
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    return Provenance(git_sha=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain")))
