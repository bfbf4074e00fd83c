"""Somebody else's training script as a stage: what of it is run, and how a rank becomes it. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

SCRATCH = "scratch"
"""Folder beside ``job.json`` that holds a fresh copy of the script and what lies beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptConfig:
    """What decides a script's result beside the seed."""

    name: str
    """The file that is run."""
    digest: str
    """Of it and of every file that is copied along."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that it is given; ``SEED`` is the seed's."""
    data: str = ""
    """Digest of the data that it may read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A script as a gang gets it."""

    name: str
    files: Mapping[str, str]
    """Name -> content as base64."""
    env: Mapping[str, str]
    data: str = ""
    """Folder that it sees as ``data``; empty: none."""


def become(script: Script, seed: int, folder: Path) -> NoReturn:
    """Turn this rank into the script, in ``folder``: the same process, and so the same leash and torchrun's variables.
    Our own source, which the service puts first, isn't on its path."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **script.env, "SEED": str(seed)}
    os.chdir(folder)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, script.name], env)
