from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from service.adapters.store_fs import FolderStore
from service.adapters.stores import StoreAt, open_store


def test_a_node_s_own_home_is_the_cache_of_a_url_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setenv("CADDIE_HOME", str(tmp_path / "node"))
    shared, remote = StoreAt(home=tmp_path / "home"), StoreAt(home=tmp_path / "home", url=f"file://{tmp_path}/remote")
    assert shared.from_here() == shared
    assert remote.from_here() == replace(remote, home=tmp_path / "node")
    assert open_store(remote.from_here()).stages == tmp_path / "node/stages"
    assert type(open_store(shared)) is FolderStore
