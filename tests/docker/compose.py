"""Reads docker/compose.yaml with its variables put in, and says what is wrong with it in this repository."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.docker.dockerfile import EXACT

VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
OUTSIDE = "127.0.0.1:"
"""How everything published begins."""


def variables(text: str) -> dict[str, str | None]:
    """Every variable of a compose file, with its default; None when it has none."""
    names = {name: default if kind == "-" else None for name, kind, default in VARIABLE.findall(text)}
    return names | dict.fromkeys(re.findall(r"^\s+environment: ([A-Z]\w*)$", text, re.MULTILINE))


def documented(text: str) -> dict[str, str]:
    """Every variable of an env file, also those behind a single #, with its value."""
    return dict(re.findall(r"^#?([A-Z]\w*)=(.*)$", text, re.MULTILINE))


def load(text: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The file with ``values``, or the defaults, in the place of its variables.

    Raises:
        KeyError: a variable has neither.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if not values.get(name) and kind != "-":
            raise KeyError(name)
        return values.get(name) or default

    return dict(yaml.safe_load(VARIABLE.sub(value, text)))


def problems(text: str, example: str, folder: Path, targets: Sequence[str], version: str) -> list[str]:
    """What is wrong with a compose file ``text`` in ``folder``, whose variables ``example`` documents."""
    used, told = variables(text), documented(example)
    found = [f"{name} isn't in .env.example" for name in used if name not in told]
    found += [f".env.example has {name}, which nothing reads" for name in told if name not in used]
    found += [
        f"{name} is {told[name]!r} in .env.example and {default!r} here"
        for name, default in used.items()
        if default is not None and told.get(name, default) != default
    ]
    found += [
        f"{name} may be empty"
        for name, default in used.items()
        if told.get(name) == "" and default == "" and _secret(name)
    ]
    found += [f"{name} has a value in .env.example" for name, value in told.items() if _secret(name) and value]
    file = load(text, {name: "x" for name in used if used[name] is None})
    for name, service in file["services"].items():
        found += [f"{name}: {problem}" for problem in _service_problems(service, file, folder, targets, version)]
    for kind in ("configs", "secrets"):
        for name, place in file.get(kind, {}).items():
            if "file" in place and not (folder / place["file"]).is_file():
                found.append(f"{kind} {name}: {place['file']} isn't there")
    return found


def _secret(name: str) -> bool:
    return re.search(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY", name) is not None


def _service_problems(
    service: Mapping[str, Any], file: Mapping[str, Any], folder: Path, targets: Sequence[str], version: str
) -> list[str]:
    found = []
    image, build = service.get("image", ""), service.get("build")
    if build is not None:
        if build["target"] not in targets:
            found.append(f"target {build['target']!r} is no stage of the Dockerfile")
        if not (folder / build["context"] / build["dockerfile"]).is_file():
            found.append(f"{build['dockerfile']} isn't there")
        if image != f"caddie-{build['target']}:{version}":
            found.append(f"image {image!r} isn't named after its target and the project's version")
        if service.get("cap_drop") != ["ALL"]:
            found.append("keeps capabilities")
    elif not EXACT.fullmatch(image) and not re.fullmatch(r"[\w/-]+:v\d+\.\d+\.\d+", image):
        found.append(f"image {image!r} isn't pinned")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        found.append("may gain privileges")
    if service.get("privileged") or service.get("network_mode") or service.get("pid"):
        found.append("shares more than it should")
    for port in service.get("ports", []):
        if not str(port).startswith(OUTSIDE):
            found.append(f"port {port} is open to the network")
    if "healthcheck" not in service:
        found.append("no health check")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source not in file["volumes"] and not source.startswith("."):
            found.append(f"volume {source!r} isn't declared")
    for word, kind in (("secrets", service.get("secrets", [])), ("configs", service.get("configs", []))):
        names = [one if isinstance(one, str) else one["source"] for one in kind]
        found += [f"{word} {name!r} isn't declared" for name in names if name not in file[word]]
    for name, needs in service.get("depends_on", {}).items():
        other = file["services"].get(name)
        if other is None:
            found.append(f"depends on {name!r}, which isn't there")
        elif needs["condition"] == "service_healthy" and "test" not in other.get("healthcheck", {}):
            found.append(f"waits for {name!r} to be healthy, which never says so")
        elif needs["condition"] == "service_completed_successfully" and other.get("restart") != "no":
            found.append(f"waits for {name!r} to end, which is started again")
    environment = service.get("environment", {})
    ray = (service.get("entrypoint") or service.get("command") or [""])[0] == "ray"
    if ray and (environment.get("RAY_AUTH_MODE") != "token" or "ray_token" not in service.get("secrets", [])):
        found.append("talks to Ray without a token")
    if ray and service.get("entrypoint") is None and environment.get("RAY_worker_niceness") != "0":
        found.append("its ranks run behind everything else")
    return found
