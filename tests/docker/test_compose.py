"""docker/compose.yaml, without an engine: the specification's own schema, and what only this repository can know."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docker import compose, dockerfile

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "docker"
TEXT = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
EXAMPLE = (FOLDER / ".env.example").read_text(encoding="utf-8")
STAGES = [stage.name for stage in dockerfile.parse((FOLDER / "Dockerfile").read_text(encoding="utf-8"))]
VERSION = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def schema(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "compose.yaml").write_text(text, encoding="utf-8")
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(folder / "compose.yaml")]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_specification_allows_it(tmp_path: Path) -> None:
    done = schema(TEXT, tmp_path)
    assert done.returncode == 0, done.stdout
    assert schema(TEXT.replace("healthcheck:", "healtcheck:"), tmp_path).returncode == 1


def test_it_is_closed_to_the_network_and_fits_the_images() -> None:
    assert compose.problems(TEXT, EXAMPLE, FOLDER, STAGES, VERSION) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"127.0.0.1:${RAY_PORT:-8265}:8265"', '"${RAY_PORT:-8265}:8265"', "head: port 8265:8265 is open"),
        ("target: gang", "target: gpu", "'gpu' is no stage"),
        ("image: caddie-gang:0.1.0", "image: caddie-gang:0.0.9", "isn't named after its target"),
        ("image: postgres:17.10-alpine", "image: postgres", "isn't pinned"),
        ("versitygw:v1.8.0", "versitygw:latest", "isn't pinned"),
        ("dockerfile: docker/Dockerfile", "dockerfile: Dockerfile", "isn't there"),
        ("cap_drop: [ALL]", "cap_drop: []", "keeps capabilities"),
        ('security_opt: ["no-new-privileges:true"]', "tty: false", "may gain privileges"),
        ("shm_size: 32gb", "pid: host", "shares more"),
        ("healthcheck: *raylet", "", "gang: no health check"),
        ('volumes: ["s3:/data"]', 'volumes: ["bucket:/data"]', "volume 'bucket' isn't declared"),
        ("mlflow: {condition: service_healthy}", "mlflov: {condition: service_healthy}", "'mlflov', which isn't there"),
        (
            "bucket: {condition: service_completed_successfully}",
            "bucket: {condition: service_healthy}",
            "never says so",
        ),
        ("bucket: {condition", "s3: {condition", "which is started again"),
        ("  ray_token:\n    environment: RAY_TOKEN", "", "'ray_token' isn't declared"),
        ("RAY_AUTH_MODE: token", "RAY_AUTH_MODE: disabled", "without a token"),
        ('RAY_worker_niceness: "0"', 'RAY_worker_niceness: "15"', "worker: its ranks run behind everything else"),
        ("file: mlflow_auth.ini", "file: auth.ini", "auth.ini isn't there"),
        ("${WORKERS:-2}", "${WORKER_COUNT:-2}", "WORKER_COUNT isn't in .env.example"),
        ("${WORKERS:-2}", "2", ".env.example has WORKERS"),
        ("${WORKERS:-2}", "${WORKERS:-3}", "WORKERS is '2' in .env.example and '3' here"),
        ("${S3_SECRET_KEY:?python3 docker/new_env.py makes one}", "${S3_SECRET_KEY:-}", "S3_SECRET_KEY may be empty"),
    ],
)
def test_a_changed_file_is_refused(old: str, new: str, says: str) -> None:
    assert old in TEXT
    changed = TEXT.replace(old, new)
    assert says in "\n".join(compose.problems(changed, EXAMPLE, FOLDER, STAGES, VERSION))


def test_a_secret_in_the_example_is_refused() -> None:
    told = EXAMPLE.replace("RAY_TOKEN=", "RAY_TOKEN=abc")
    assert "RAY_TOKEN has a value" in "\n".join(compose.problems(TEXT, told, FOLDER, STAGES, VERSION))


def test_nothing_starts_without_the_secrets() -> None:
    secrets = [
        name for name, value in compose.documented(EXAMPLE).items() if not value and not name.startswith("CADDIE_")
    ]
    assert len(secrets) == 6
    filled = dict.fromkeys(secrets, "x")
    assert compose.load(TEXT, filled)["services"]["head"]["environment"]["MLFLOW_TRACKING_PASSWORD"] == "x"
    for name in set(secrets) - {"RAY_TOKEN"}:  # the engine itself refuses a secret from an empty variable
        with pytest.raises(KeyError, match=name):
            compose.load(TEXT, filled | {name: ""})


def test_secrets_are_random_and_for_their_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("new_env.py", ".env.example"):
            shutil.copy(FOLDER / file, tmp_path / name)
        done = subprocess.run([sys.executable, tmp_path / name / "new_env.py"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        env = tmp_path / name / ".env"
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        written.append(compose.documented(env.read_text()))
    empty = [name for name, value in re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE) if not value]
    assert all(re.fullmatch(r"[0-9a-f]{48}", values[name]) for values in written for name in empty)
    assert len({values[name] for values in written for name in empty}) == 2 * len(empty)
    again = subprocess.run([sys.executable, tmp_path / "a" / "new_env.py"], capture_output=True, text=True)
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_neither_git_nor_a_submitted_job_takes_the_secrets_along() -> None:
    assert "docker/.env" in (REPO / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "docker/" in (REPO / ".rayignore").read_text(encoding="utf-8").splitlines()
