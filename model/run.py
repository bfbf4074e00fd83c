"""The whole chain of a seed in one gang, as a record's ``train_gpt.py`` must: train, pack, score.

The staged form (``python -m model STAGE``) calls the same functions, one process a stage, and gives the same numbers.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.environment import with_environment
from model.gang import Gang, join_gang
from model.job import ARTIFACT, Job
from model.net.attention import attention_kernel
from model.quant.pack import PackConfig, pack_stage
from model.report import FAILURE, REPORT, StageReport, file_ref, write_json, write_report
from model.score.stage import ScoreConfig, score_stage
from model.train import GPTBuilder, TrainConfig, train_stage

StageFunction = Callable[[Job, Path, Gang], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything a gang is configured by. A recipe is a function that returns one inside a ``RunSpec``."""

    net: GPTBuilder
    train: TrainConfig = TrainConfig()
    pack: PackConfig = PackConfig()
    score: ScoreConfig = ScoreConfig()


def run_stage(function: StageFunction, job: Job, out: Path, gang: Gang) -> dict[str, float]:
    """One stage with its report; a rank that fails leaves ``failure.<rank>.json`` with its traceback and raises."""
    started = time.perf_counter()
    try:
        if gang.chief:
            out.mkdir(parents=True, exist_ok=True)
        gang.barrier()
        metrics = function(job, out, gang)
        gang.barrier()
    except BaseException as error:
        failure = {"rank": gang.rank, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / FAILURE.replace("json", f"{gang.rank}.json"), failure)
        raise
    if gang.chief:
        names = sorted(p.name for p in out.iterdir() if p.is_file() and p.name != REPORT and p.name[0] != ".")
        report = StageReport(
            stage=job.stage,
            seed=job.seed,
            elapsed_s=time.perf_counter() - started,
            metrics=metrics,
            outputs={name: file_ref(out, name) for name in names},
            facts=facts_of(gang, job),
        )
        write_report(out, report)
    return metrics


def facts_of(gang: Gang, job: Job) -> dict[str, str | int]:
    """Where a stage ran."""
    cuda = gang.device.type == "cuda"
    return {
        "hardware": torch.cuda.get_device_name() if cuda else f"{platform.machine()} cpu",
        "host": platform.node(),
        "ranks": gang.world,
        "threads": job.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "attention": attention_kernel(gang.device.type),
    }


def run_chain(job: Job, out: Path, gang: Gang, code_bytes: int) -> None:
    """Train, pack and score one seed below ``out``, each stage in a folder of its own."""
    stages: list[tuple[str, StageFunction]] = [("train", train_stage), ("pack", pack_stage)]
    score = job.config.score
    stages += [(f"score.{name}", score_stage) for name in ("sliding", "slot") if getattr(score, name) is not None]
    for name, function in stages:
        staged = replace(job, stage=name, inputs={done: str(out / done) for done, _ in stages})
        run_stage(function, staged, out / name, gang)
        if name == "pack" and gang.chief:
            for line in size_lines(job.config.pack, (out / name / ARTIFACT).stat().st_size, code_bytes):
                gang.log(line)


def size_lines(config: PackConfig, model_bytes: int, code_bytes: int) -> list[str]:
    """The field's log lines about the size that counts: code and model together."""
    return [
        f"Code size: {code_bytes} bytes",
        f"Total submission size int{config.matrix_bits}+{config.codec}: {code_bytes + model_bytes} bytes",
    ]


def script_main(config: RunConfig, script: str, corpus: str, corpus_digest: str, threads: int) -> None:
    """What a bundled ``train_gpt.py`` does: its recipe as the default, changed by the field's environment variables.

    SEED, DATA_PATH (a prepared corpus), OUT_DIR, DEVICE and CPU_THREADS set what is not in the config.
    """
    environ = os.environ
    try:
        config = with_environment(config, environ)
        device = environ.get("DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
        job = Job(
            config=config,
            seed=int(environ.get("SEED", "1337")),
            corpus=str(Path(environ.get("DATA_PATH", corpus)).expanduser()),
            corpus_digest=corpus_digest,
            device=device,
            threads=int(environ.get("CPU_THREADS", threads)),
        )
        with join_gang(device, job.threads) as gang:
            out = Path(environ.get("OUT_DIR", f"out_seed{job.seed}"))
            run_chain(job, out, gang, code_bytes=Path(script).stat().st_size)
    except ValueError as error:
        sys.exit(f"train_gpt.py: {error}")
