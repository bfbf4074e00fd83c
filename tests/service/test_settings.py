from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SpecError
from service.settings import read_settings


def test_without_any_variable_everything_lies_below_one_folder_of_the_user() -> None:
    settings = read_settings({})
    assert settings.home == Path.home().resolve() / ".caddie"
    assert settings.ray_address is None
    assert settings.store_url == ""
    assert settings.mlflow_uri == f"sqlite:///{settings.home}/mlflow.db"
    below = (settings.corpora, settings.records, settings.mlflow_artifacts)
    assert len(set(below)) == 3
    assert all(path.parent == settings.home for path in below)


def test_each_variable_sets_its_own_place(tmp_path: Path) -> None:
    settings = read_settings(
        {
            "CADDIE_HOME": str(tmp_path / "h"),
            "RAY_ADDRESS": "10.0.0.1:6379",
            "MLFLOW_TRACKING_URI": "http://server:5000",
            "CADDIE_AUTHOR": "Ada",
            "CADDIE_GITHUB_ID": "ada",
            "CADDIE_STORE": "s3://bucket/caddie",
        }
    )
    assert settings.home == tmp_path / "h"
    assert (settings.ray_address, settings.mlflow_uri) == ("10.0.0.1:6379", "http://server:5000")
    assert settings.store_url == "s3://bucket/caddie"
    assert (settings.author, settings.github_id) == ("Ada", "ada")


def test_an_empty_variable_counts_as_unset() -> None:
    empty = dict.fromkeys(("CADDIE_HOME", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CADDIE_AUTHOR"), "")
    assert read_settings(empty) == read_settings({})


def test_a_relative_home_and_a_tilde_become_absolute() -> None:
    assert read_settings({"CADDIE_HOME": "here"}).home == Path.cwd().resolve() / "here"
    assert read_settings({"CADDIE_HOME": "~/there"}).home == Path.home().resolve() / "there"


def test_a_webhook_is_an_http_address_and_a_wrong_one_is_not_shown() -> None:
    assert read_settings({}).webhook_url is None
    url = "https://hooks.example.org/services/secret"
    assert read_settings({"CADDIE_WEBHOOK_URL": url}).webhook_url == url
    for wrong in ("file:///etc/secret", "hooks.example.org/secret", "https://"):
        with pytest.raises(SpecError, match="CADDIE_WEBHOOK_URL is no address") as refused:
            read_settings({"CADDIE_WEBHOOK_URL": wrong})
        assert "secret" not in str(refused.value)
