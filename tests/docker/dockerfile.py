"""Reads a Dockerfile as far as the checks need it, and says what is wrong with it in this repository."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

EXACT = re.compile(r"[\w./-]+:\d+\.\d+[\w.-]*|scratch")
"""An image with a tag that names at least a minor version."""


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and its text, continued lines joined."""

    def last(self, word: str) -> str:
        """Text of the last ``word`` instruction; empty when there is none."""
        return next((text for step, text in reversed(self.steps) if step == word), "")


def parse(text: str) -> list[Stage]:
    """Stages in order.

    Raises:
        ValueError: something stands before the first FROM.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in filter(str.strip, "\n".join(lines).replace("\\\n", " ").splitlines()):
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name=name.strip(), base=base.strip()))
        elif not stages:
            raise ValueError(f"{line!r} stands before the first FROM")
        else:
            stages[-1].steps.append((word, rest.strip()))
    return stages


def lineage(stages: Sequence[Stage], name: str) -> list[Stage]:
    """The stage called ``name`` and those it builds on, nearest first."""
    known = {stage.name: stage for stage in stages}
    found = []
    while name in known:
        found.append(known[name])
        name = known[name].base
    return found


def ignored(path: str, rules: str) -> bool:
    """Whether a build leaves ``path`` out, by the text of its .dockerignore: the last rule that fits counts."""
    out = False
    parts = path.split("/")
    below = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in rules.splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = _regex(rule.removeprefix("!").strip("/"))
        if any(pattern.fullmatch(place) for place in below):
            out = not rule.startswith("!")
    return out


def _regex(rule: str) -> re.Pattern[str]:
    escaped = re.escape(rule).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
    return re.compile(escaped.replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))


def problems(stages: Sequence[Stage], root: Path, targets: Sequence[str]) -> list[str]:
    """What is wrong; ``targets`` are the stages that become images."""
    rules = (root / ".dockerignore").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    names = [stage.name for stage in stages]
    found += [f"no stage {target!r}" for target in targets if target not in names]
    for number, stage in enumerate(stages):
        if stage.base not in names[:number] and not EXACT.fullmatch(stage.base):
            found.append(f"{stage.base!r} isn't pinned")
        for word, text in stage.steps:
            if word in ("COPY", "ADD"):
                found += _copy_problems(text, root, rules, names[:number])
            if word == "ENV" or word == "ARG":
                found += [
                    f"{name} bakes a secret in" for name in re.findall(r"\w*(?:TOKEN|PASSWORD|SECRET)\w*(?==)", text)
                ]
            elsewhere = re.search(r"https?://(?!127\.0\.0\.1)|--(?:extra-)?index-url|--trusted-host|--find-links", text)
            if elsewhere:
                found.append(f"{text[:60]!r} says where things come from")
    for target in (target for target in targets if target in names):
        chain = lineage(stages, target)
        found += _image_problems(target, chain, project["requires-python"])
    builder = next((stage for stage in stages if any("FLASH_ATTN=" in text for _, text in stage.steps)), None)
    if builder is not None:
        version = re.search(r"FLASH_ATTN=(\S+)", " ".join(text for _, text in builder.steps))
        wanted = Requirement(project["optional-dependencies"]["gpu"][0])
        if version is None or not wanted.specifier.contains(version[1]):
            found.append(f"flash-attn {version and version[1]} isn't {wanted}")
    return found


def _copy_problems(text: str, root: Path, rules: str, earlier: Sequence[str]) -> list[str]:
    words = shlex.split(text)
    flags = [word for word in words if word.startswith("--")]
    *sources, _ = [word for word in words if not word.startswith("--")]
    for flag in flags:
        if flag.startswith("--from="):
            stage = flag.removeprefix("--from=")
            return [] if stage in earlier else [f"COPY from {stage!r}, which is no earlier stage"]
    found = [f"COPY of {source}, which isn't there" for source in sources if not list(root.glob(source.strip("/")))]
    found += [
        f"COPY of {source}, which .dockerignore leaves out" for source in sources if ignored(source.strip("/"), rules)
    ]
    return found


def _image_problems(target: str, chain: Sequence[Stage], requires_python: str) -> list[str]:
    found = []
    user = chain[0].last("USER")
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user):
        found.append(f"{target} runs as {user or 'root'!r}: Kubernetes knows a user that isn't root by its number")
    python = re.match(r"python:(\d+\.\d+\.\d+)-", chain[-1].base)
    if python is None:
        found.append(f"{target} isn't built on a Python image")
    elif not SpecifierSet(requires_python).contains(python[1]):
        found.append(f"{target} has Python {python[1]}, the project wants {requires_python}")
    health = next((stage.last("HEALTHCHECK") for stage in chain if stage.last("HEALTHCHECK")), "")
    if "CMD [" not in health or not json.loads(health[health.index("[") :]):
        found.append(f"{target} has no health check")
    runs = [text for stage in chain for word, text in stage.steps if word == "RUN"]
    installs = [text for text in runs if "pip install" in text]
    found += [f"{target}: {text[-60:]!r} ignores constraints.txt" for text in installs if not _bound(text)]
    return found


def _bound(install: str) -> bool:
    return "-c /tmp/constraints.txt" in install or "--no-deps" in install
