"""Anybody's training script as an experiment: read from disk, planned into keys, each seed one stage.

A key holds the digest of the script and of what lies beside it, the variables that it is given, the data that it may
read, the gang's shape and the seed. What a script measures is read from its log by the field's line formats.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.codec import digest, encode
from model.script import Script, ScriptConfig
from model.stages import STAGES, Stage
from service.errors import SpecError
from service.experiment import Contender, Experiment
from service.source import source_digest
from service.spec import Budget, GangShape, RunSpec
from service.stages import PlannedStage, stage_key

BESIDE = (".py", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".model", ".vocab", ".sh")
"""Kinds of files beside a script that are copied along: what it may import, build or load."""
TEXTS = (".py", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".sh")
KEPT = "script.json"
"""The output of a script's stage that holds what was run."""
LARGEST = 8 * 2**20
EDGE = 2**20
"""Bytes at each end of a data file that its digest reads: shards are hundreds of megabytes."""
MODULES = ("model.script",)
OWN = ("SEED", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that the gang sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A script as it lies on disk."""

    path: Path
    files: Mapping[str, bytes]
    data: Path | None
    data_digest: str

    @property
    def digest(self) -> str:
        """Of every file."""
        total = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
        return total.hexdigest()[:16]


def read_source(path: Path, data: Path | None = None) -> Source:
    """A script, the files beside it that it may need, and its data: ``data``, or a folder of that name beside it.

    Raises:
        SpecError: one of them can't be read.
    """
    try:
        files = {path.name: path.read_bytes()}
        for other in sorted(path.resolve().parent.iterdir()):
            if other.suffix in BESIDE and other.is_file() and other.stat().st_size <= LARGEST:
                files.setdefault(other.name, other.read_bytes())
        beside = path.resolve().parent / "data"
        folder = data.resolve(strict=True) if data else beside if beside.is_dir() else None
        return Source(path=path, files=files, data=folder, data_digest=data_digest(folder) if folder else "")
    except OSError as error:
        raise SpecError(f"{error.filename or path}: {error.strerror or error}") from error


def kept(script: Mapping[str, Any]) -> dict[str, Any]:
    """Of an encoded :class:`model.script.Script`, what a record of it ships: its name, and the content (base64) of it
    and of what it names or imports of the files beside it, directly or through another of them."""
    files, name = script["files"], script["name"]
    wanted, found = [name], {name}
    for one in wanted:
        if Path(one).suffix not in TEXTS and one != name:
            continue
        text = base64.b64decode(files[one]).decode("utf-8", errors="replace")
        more = [other for other in files if other not in found and _names(text, other)]
        wanted += more
        found |= set(more)
    return {"name": name, "files": {one: files[one] for one in wanted}}


def _names(text: str, file: str) -> bool:
    """Whether a program speaks of a file beside it."""
    module = re.escape(file.removesuffix(".py"))
    imports = file.endswith(".py") and re.search(rf"^\s*(?:import|from)\s[^\n]*\b{module}\b", text, re.M)
    return bool(imports) or file in text


def data_digest(folder: Path) -> str:
    """Of names, sizes and the first and last megabyte of every file below ``folder``."""
    total = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        size = path.stat().st_size
        with open(path, "rb") as file:
            total.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
            total.update(file.read(EDGE))
            file.seek(max(0, size - EDGE))
            total.update(file.read(EDGE))
    return total.hexdigest()[:16]


def parse_env(words: Sequence[str]) -> dict[str, str]:
    """``["QK_GAIN_INIT=5.25"]`` as variables.

    Raises:
        SpecError: a word without ``=``, a variable twice, or one that the gang sets.
    """
    env: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or "\0" in word:
            raise SpecError(f"--env {word!r}: write it as NAME=VALUE, e.g. QK_GAIN_INIT=5.25")
        if name in OWN:
            raise SpecError(f"--env {name}: the gang sets it" + ("; give --seeds" if name == "SEED" else ""))
        if name in env:
            raise SpecError(f"--env {name} is given twice: {env[name]!r} and {value!r}")
        env[name] = value
    return env


def parse_space(words: Sequence[str]) -> list[dict[str, str]]:
    """``["QK_GAIN_INIT=4.0,5.0"]`` as the product of all axes.

    Raises:
        SpecError: as :func:`parse_env`, or an axis with nothing on it.
    """
    axes = parse_env(words)
    values = {name: text.split(",") for name, text in axes.items()}
    empty = next((name for name, found in values.items() if "" in found), None)
    if empty is not None or not values:
        raise SpecError(f"--space {empty or ''}: write it as NAME=V1,V2, e.g. QK_GAIN_INIT=4.0,5.0")
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def script_experiment(
    source: Source,
    seeds: tuple[int, ...],
    env: Mapping[str, str],
    gang: GangShape,
    budget: Budget,
    points: Sequence[Mapping[str, str]] = (),
) -> Experiment:
    """The script over seeds; with ``points``, the script as it is and once for each of them, as trials of a search."""
    name = f"{source.path.resolve().parent.name}-{source.path.stem}".strip("-")
    contenders = [_contend(source, seeds, {**env, **point}, point, gang, budget, name) for point in ({}, *points)]
    title = f"{'sweep' if points else 'script'}-{name}"
    return Experiment(name=title, seeds=seeds, contenders=tuple(contenders), search=bool(points))


def _contend(
    source: Source,
    seeds: tuple[int, ...],
    env: Mapping[str, str],
    overlay: Mapping[str, str],
    gang: GangShape,
    budget: Budget,
    name: str,
) -> Contender:
    own = ScriptConfig(
        name=source.path.name, digest=source.digest, env=dict(sorted(env.items())), data=source.data_digest
    )
    spec = RunSpec(config=own, gang=gang, budget=budget, corpus=source.data_digest or "none", name=name)
    planned = _plan(source, spec)
    plans = {seed: (_of_seed(planned, seed),) for seed in seeds}
    return Contender(spec=spec, overlay=dict(overlay), headline=Stage.SCRIPT, plans=plans)


def _plan(source: Source, spec: RunSpec) -> PlannedStage:
    """The stage without its seed."""
    own: ScriptConfig = spec.config
    files = {name: base64.b64encode(content).decode() for name, content in source.files.items()}
    script = Script(name=own.name, files=files, env=own.env, data=str(source.data or ""))
    parts = dict(_parts(spec))
    cap_s = spec.budget.train_s + spec.budget.eval_s
    return PlannedStage(
        stage=Stage.SCRIPT,
        seed=-1,
        key="",
        parts=parts,
        inputs={},
        config=encode(script),
        gang=spec.gang,
        corpus="",
        corpus_digest=own.data,
        modules=MODULES,
        deadline_s=cap_s + spec.budget.slack_s,
        cap_s=cap_s,
        silence_s=spec.budget.silence_s,
    )


def _parts(spec: RunSpec) -> Iterator[tuple[str, str]]:
    own: ScriptConfig = spec.config
    yield "script", f"{own.name} {own.digest}"
    yield "env", " ".join(f"{name}={value}" for name, value in own.env.items())
    yield "env digest", digest(own.env)
    yield "data", own.data
    yield "gang", f"{spec.gang.ranks}x{spec.gang.threads} {spec.gang.device}"
    yield "hardware", spec.gang.hardware or "any"
    yield "source", source_digest(MODULES)[:16]


def _of_seed(planned: PlannedStage, seed: int) -> PlannedStage:
    assert STAGES[Stage.SCRIPT].seeded
    parts = {**planned.parts, "seed": str(seed)}
    return replace(planned, seed=seed, parts=parts, key=stage_key(Stage.SCRIPT, parts))
