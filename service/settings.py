"""What the environment decides: places and servers. The only reader of the environment here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import SpecError
from service.nodes import Checks


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Places and addresses."""

    home: Path
    """CADDIE_HOME, ``~/.caddie`` by default: stages, corpora, records, the MLflow store."""
    ray_address: str | None
    """RAY_ADDRESS, which ``ray job submit`` sets; None starts a local Ray of our own."""
    mlflow_uri: str
    """MLFLOW_TRACKING_URI; a SQLite file below ``home`` by default."""
    author: str
    """CADDIE_AUTHOR: the name in a record's submission.json."""
    github_id: str
    """CADDIE_GITHUB_ID: likewise."""
    checks: Checks = Checks.AUTO
    """CADDIE_PREFLIGHT: which gangs begin with a preflight of their node, ``auto``, ``always`` or ``never``."""
    store_url: str = ""
    """CADDIE_STORE: where finished stages are kept for all nodes, as ``s3://bucket/folder``; empty: ``home``."""
    node_usd_per_hour: float | None = None
    """CADDIE_NODE_USD_PER_HOUR: what an hour of a node with 8 GPUs costs; None: :mod:`service.money` knows."""
    hub_endpoint: str | None = None
    """HF_ENDPOINT: the server that corpora are fetched from; None: huggingface_hub's own."""
    webhook_url: str | None = None
    """CADDIE_WEBHOOK_URL: what is told when an experiment begins and ends; a secret."""

    @property
    def corpora(self) -> Path:
        return self.home / "corpora"

    @property
    def records(self) -> Path:
        return self.home / "records"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.home / "mlflow_artifacts"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from environment variables."""
    home = Path(environ.get("CADDIE_HOME") or "~/.caddie").expanduser().resolve()
    return Settings(
        home=home,
        ray_address=environ.get("RAY_ADDRESS") or None,
        mlflow_uri=environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
        author=environ.get("CADDIE_AUTHOR", ""),
        github_id=environ.get("CADDIE_GITHUB_ID", ""),
        checks=_checks(environ),
        store_url=environ.get("CADDIE_STORE", ""),
        node_usd_per_hour=_number(environ, "CADDIE_NODE_USD_PER_HOUR"),
        hub_endpoint=environ.get("HF_ENDPOINT") or None,
        webhook_url=_url(environ, "CADDIE_WEBHOOK_URL"),
    )


def _checks(environ: Mapping[str, str]) -> Checks:
    text = environ.get("CADDIE_PREFLIGHT") or Checks.AUTO
    if text not in tuple(Checks):
        raise SpecError(f"CADDIE_PREFLIGHT is {text!r}: set one of {', '.join(Checks)}")
    return Checks(text)


def _url(environ: Mapping[str, str], name: str) -> str | None:
    found = environ.get(name) or None
    if found is not None and not re.match(r"https?://[^/\s]+", found):
        # Not shown: it may be a secret that lacks no more than its beginning.
        raise SpecError(f"{name} is no address: it begins with http:// or https:// and a host")
    return found


def _number(environ: Mapping[str, str], name: str) -> float | None:
    try:
        return float(environ[name]) if environ.get(name) else None
    except ValueError:
        raise SpecError(f"{name} is {environ[name]!r}: set a number") from None
