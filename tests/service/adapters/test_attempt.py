from __future__ import annotations

import asyncio
from pathlib import Path

from model.data.shards import Corpus
from service.adapters.attempt import run_attempts
from service.adapters.store_fs import FolderStore
from service.errors import FailureKind
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
