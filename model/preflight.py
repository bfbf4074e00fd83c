"""``python -m model preflight``: is this node fit for a run that is paid by the minute? Seconds, before the run.

Every rank looks at its GPU, all ranks add up numbers, every corpus file is digested, and a network of fixed size is
stepped 20 times, so that a slow node shows by comparison with others of its kind. What is wrong is raised; what is
merely slow is measured, and judged outside the gang.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from model.data.shards import MANIFEST
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPTConfig
from model.report import file_ref

STEPS = 20
WARM_UP = 3
SUM_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightConfig:
    """What a node must have."""

    gpu_memory_gb: float = 0.0
    """Decimal GB free on each rank's GPU."""
    disk_gb: float = 1.0
    """Decimal GB free where outputs are written."""


def preflight_stage(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    """Check one node with the gang it is to hold.

    Returns:
        ``step_ms``, the median step of the slowest rank; ``sum_ms``, of an all-reduce of 4 MB; ``gpus`` in the gang;
        ``gpu_memory_gb``, free on the fullest; ``disk_gb``, free below ``out``; ``files``, digested.

    Raises:
        RuntimeError: GPUs of different kinds, too little memory or disk, a wrong sum, a damaged corpus file; the
            message has both values.
    """
    config: PreflightConfig = job.config
    kind, memory_gb = gpu_of(gang)
    kinds = sorted(set(gang.gather(kind)))
    if len(kinds) > 1:
        raise RuntimeError(f"node unfit: its GPUs are of different kinds, {' and '.join(kinds)}")
    least_gb = min(gang.gather(memory_gb))
    if least_gb < config.gpu_memory_gb:
        raise RuntimeError(f"node unfit: {least_gb:.1f} GB free on a GPU, and a run needs {config.gpu_memory_gb:g}")
    disk_gb = shutil.disk_usage(out).free / 1e9
    if disk_gb < config.disk_gb:
        raise RuntimeError(f"node unfit: {disk_gb:.1f} GB of disk free at {out}, and a run needs {config.disk_gb:g}")
    files = gang.first(float(check_files(Path(job.corpus)) if gang.chief else 0))
    sum_ms = check_sum(gang)
    step_ms = max(gang.gather(time_steps(gang)))
    gang.log(f"preflight: {gang.world} x {kind}, step {step_ms:.2f} ms, all-reduce {sum_ms:.2f} ms, {disk_gb:.0f} GB")
    return {
        "step_ms": step_ms,
        "sum_ms": sum_ms,
        "gpus": float(gang.world if gang.device.type == "cuda" else 0),
        "gpu_memory_gb": least_gb,
        "disk_gb": disk_gb,
        "files": files,
    }


def gpu_of(gang: Gang) -> tuple[str, float]:
    """Kind of this rank's GPU and its free memory in decimal GB; of a CPU ``cpu`` and 0."""
    if gang.device.type != "cuda":
        return "cpu", 0.0
    free, _ = torch.cuda.mem_get_info(gang.device)
    return torch.cuda.get_device_name(gang.device), free / 1e9


def check_files(folder: Path) -> int:
    """Digest every file that the corpus' manifest names; how many there are.

    Raises:
        RuntimeError: one is missing or damaged.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    refs = [manifest["tokenizer"], *(ref for split in manifest["splits"].values() for ref in split)]
    for ref in refs:
        path = folder / ref["path"]
        found = file_ref(folder, ref["path"]).sha256 if path.is_file() else "nothing"
        if found != ref["sha256"]:
            raise RuntimeError(f"node unfit: {path} has SHA-256 {found[:12]}, the manifest says {ref['sha256'][:12]}")
    return len(refs)


def check_sum(gang: Gang) -> float:
    """Add up a million numbers over the ranks; the median time in ms.

    Raises:
        RuntimeError: the sum is wrong.
    """
    took = []
    for _ in range(SUM_ROUNDS):
        numbers = torch.full((1_000_000,), float(gang.rank + 1), device=gang.device)
        started = clock(gang)
        gang.beat()
        gang.sum_(numbers)
        took.append(1000 * (clock(gang) - started))
        right = gang.world * (gang.world + 1) / 2
        if not bool((numbers == right).all()):
            raise RuntimeError(
                f"node unfit: an all-reduce gave {float(numbers[numbers != right][0])} instead of {right}"
            )
    return statistics.median(took)


def time_steps(gang: Gang) -> float:
    """Median ms of a training step of a network that is the same on every node; each rank by itself."""
    cuda = gang.device.type == "cuda"
    config = GPTConfig(layers=4) if cuda else GPTConfig(layers=1, dim=64, heads=2, kv_heads=1)
    shape = (16, 1024) if cuda else (1, 256)
    torch.manual_seed(0)
    net = config.build().to(gang.device)
    ids = torch.randint(config.vocab_size, shape, device=gang.device)
    took = []
    for _ in range(WARM_UP + STEPS):
        gang.beat()
        started = clock(gang)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda):
            loss = net.loss(ids, ids)
        loss.backward()
        net.zero_grad(set_to_none=True)
        took.append(1000 * (clock(gang) - started))
    return statistics.median(took[WARM_UP:])


def clock(gang: Gang) -> float:
    """Seconds, after the device has caught up."""
    if gang.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
