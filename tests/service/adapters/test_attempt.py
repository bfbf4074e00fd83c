from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from model.data.shards import Corpus
from service.adapters import attempt as attempt_module
from service.adapters.attempt import run_attempts
from service.adapters.store_fs import FolderStore
from service.adapters.torchrun import Ended
from service.errors import FailureKind
from service.failures import RankFailure, cause_of
from service.spec import RunSpec
from service.stages import plan_seed


def test_a_disk_that_refuses_is_the_operator_s_to_mend_and_says_how(
    spec: RunSpec, corpus: Corpus, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "home")
    planned = plan_seed(spec, 42, corpus)[0]
    (tmp_path / "home" / "attempts" / planned.key).write_text("a file where a folder has to be")
    (outcome,) = asyncio.run(run_attempts([planned], store))
    assert outcome.kind is FailureKind.OPERATOR
    assert "CADDIE_HOME sets another folder" in outcome.why
    assert outcome.report is None


def test_ranks_that_fall_silent_on_a_full_disk_are_the_operator_s_to_mend_and_not_tried_again(
    spec: RunSpec, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "home")
    planned = plan_seed(spec, 42, corpus)[0]

    async def fall_silent(*_: object) -> Ended:
        return Ended(exit_code=1)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(attempt_module, "run_gang", fall_silent)
    (silent,) = asyncio.run(run_attempts([planned], store))
    assert silent.kind is FailureKind.INFRASTRUCTURE
    monkeypatch.setattr(Path, "write_bytes", refuse)
    (full,) = asyncio.run(run_attempts([planned], store))
    assert full.kind is FailureKind.OPERATOR
    assert "No space left on device - free some space and run the same command again" in full.why


def test_a_rank_that_says_that_the_disk_is_full_needs_the_operator_too() -> None:
    failure = RankFailure(rank=1, error="OSError: [Errno 28] No space left on device: 'checkpoint.bin'", traceback="")
    cause = cause_of([failure], exit_code=1, ranks=2)
    assert cause.kind is FailureKind.OPERATOR
    assert "rank 1" in cause.why
    assert "free some space" in cause.why
