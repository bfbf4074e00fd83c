"""What orchestration costs beside the stages that it runs.

python tests/bench/orchestration.py trials [--trials 1000 --slots 16 --stage-s 1]
python tests/bench/orchestration.py chain | cached | restart | statistics

``trials``: real Tune, broker, store and view; only the gang is replaced, by one that waits and publishes. ``ideal`` is
trials x stage / slots. The others run the ``caddie`` command as it is, on a small corpus, and look at its clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.spec import GangShape, SweepSpec
from service.stages import PlannedStage, Planner
from service.stats import Sample
from sweeps.recipes.tiny import tiny
from tests.bench.no_stages import CORPUS, publish
from tests.mini_corpus import write_documents

ROOT = Path(__file__).resolve().parents[2]


def grid(trials: int) -> Experiment:
    """``trials`` configs of one seed, each of which trains, packs and scores; each stage is its own."""
    spec = replace(tiny(), gang=GangShape(ranks=1, threads=1, device="cpu"))
    rates = tuple(1e-3 * (1 + i / trials) for i in range(trials))
    sweep = SweepSpec(name="bench", recipe="tiny", space={"score.slot.lr": rates})
    planner = Planner(CORPUS)
    contenders = [contend(spec, {}, (1,), CORPUS, Stage.SLIDING, (Stage.SLIDING,), planner)]
    contenders += [
        contend(one, overlay, (1,), CORPUS, stage, (stage,), planner) for stage, overlay, one in sweep.specs(spec)
    ]
    return Experiment(name="bench", seeds=(1,), contenders=tuple(contenders), search=True)


def measure_trials(trials: int, slots: int, stage_s: float) -> dict[str, float]:
    """Tune over ``trials`` configs whose score waits ``stage_s`` in one of ``slots``; the shared stages are there."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    from service.adapters import ray_engine as engines
    from service.adapters.attempt import Outcome
    from service.adapters.ray_broker import Broker
    from service.adapters.ray_cluster import ray_session
    from service.adapters.stores import StoreAt
    from service.adapters.turns import Turns

    plain: Any = Broker.__ray_metadata__.modified_class  # type: ignore[attr-defined]

    class Waiting(plain):  # type: ignore[misc]
        """The broker with gangs that only wait."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.turns = Turns(lambda: slots)

        async def _run(self, planned: PlannedStage, choose: Any) -> list[Outcome]:
            async with self.turns.turn(0):
                group = choose()
                await asyncio.sleep(stage_s * len(group))
            return [Outcome(report=publish(self.store, one), gang_s=stage_s) for one in group]

    with tempfile.TemporaryDirectory(prefix="caddie-bench-") as home:
        store, experiment = FolderStore(Path(home)), grid(trials)
        experiment = replace(experiment, contenders=tuple(_alone(one) for one in experiment.contenders))
        for plan in experiment.base.plans.values():
            for planned in plan:
                publish(store, planned)
        with ray_session(None):
            at = StoreAt(home=Path(home))
            engine = engines.RayEngine(at)
            ray.kill(engine.broker)
            engine.broker = ray.remote(num_cpus=0, max_concurrency=10_000)(Waiting).remote(at)
            ray.get(engine.broker.account.remote())
            plans = [list(one.plans.values()) for one in experiment.contenders[1:]]
            started, peak = time.monotonic(), _Peak()
            with peak:
                engine.run_trials("bench", plans)
            took = time.monotonic() - started
            engine.close()
        missing = [
            one for one in experiment.contenders for plan in one.plans.values() if store.find(plan[-1].key) is None
        ]
        assert not missing
    ideal = trials * stage_s / slots
    return {
        "trials": trials,
        "slots": slots,
        "took_s": took,
        "ideal_s": ideal,
        "ratio": took / ideal,
        "peak_gb": peak.gb,
    }


def _alone(contender: Any) -> Any:
    """Each stage by itself: stages that go together would share one wait."""
    plans = {seed: tuple(replace(one, together="") for one in plan) for seed, plan in contender.plans.items()}
    return replace(contender, plans=plans)


class _Peak:
    """The most memory that this process and all below it hold, in decimal GB, looked at every second."""

    def __init__(self) -> None:
        import threading

        self.gb, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Peak:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        own = psutil.Process()
        while not self.over.wait(1.0):
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    info = process.memory_full_info()
                except psutil.Error:
                    continue
                total += info.pss
            self.gb = max(self.gb, total / 1e9)


def caddie(home: Path, *words: str) -> tuple[float, dict[str, Any]]:
    """Wall-clock and JSON answer of a command."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CADDIE_", "MLFLOW_"))}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sweeps", *words],
        cwd=ROOT,
        env=environ | {"CADDIE_HOME": str(home)},
        stdout=subprocess.PIPE,
        check=False,
    )
    took = time.monotonic() - started
    return took, json.loads(done.stdout)


def small(corpus: Path, **changes: object) -> list[str]:
    """A stage of about a second."""
    sets = {
        "corpus": corpus,
        "net.layers": 1,
        "train.steps": 12,
        **{k.replace("__", "."): v for k, v in changes.items()},
    }
    return [word for path, value in sets.items() for word in ("--set", f"{path}={value}")]


def gang_s(home: Path) -> float:
    """What the gangs of every finished stage took."""
    return sum(json.loads(path.read_text())["gang_s"] for path in (home / "stages").glob("*/key.json"))


def measure_chain(home: Path) -> dict[str, float]:
    """A seed's chain on the local engine: wall-clock less the gangs' time; corpus prepared before."""
    words = small(write_documents(home / "mini.jsonl"), score__slot="none")
    caddie(home, "plan", "tiny", "--json", *words)
    took, _ = caddie(home, "run", "tiny", "--seeds", "1", "--json", *words)
    stages = gang_s(home)
    return {"wall_s": took, "gangs_s": stages, "outside_s": took - stages}


def measure_cached(home: Path) -> dict[str, float]:
    """64 trials a second time."""
    axes = ["--space", f"score.slot.lr={','.join(f'{i / 1000}' for i in range(1, 17))}"]
    axes += ["--space", "score.slot.steps=1,2,3,4"]
    words = [
        "sweep",
        "slot",
        "--seeds",
        "1",
        "--no-record",
        "--json",
        *axes,
        *small(write_documents(home / "mini.jsonl")),
    ]
    first, _ = caddie(home, *words)
    again, _ = caddie(home, *words)
    return {"first_s": first, "again_s": again, "per_trial_s": again / 64}


def measure_restart(home: Path) -> dict[str, float]:
    """1,000 finished trials and one that isn't: from the command to its gang's start."""
    axis = ",".join(f"{0.001 + i / 1_000_000:.6f}" for i in range(1001))
    words = small(write_documents(home / "mini.jsonl"))
    from service.settings import read_settings
    from service.spec import parse_changes
    from service.wiring import Wiring

    spec = tiny().at(parse_changes([word for word in words if word != "--set"]))
    corpus = Wiring(read_settings({"CADDIE_HOME": str(home)})).corpus(spec, lambda _: None)
    caddie(home, "run", "tiny", "--seeds", "1", "--json", *words)
    store, planner = FolderStore(home), Planner(corpus)
    sweep = SweepSpec(name="slot", recipe="tiny").with_axes([f"score.slot.lr={axis}"])
    keys = []
    for stage, overlay, one in sweep.specs(spec):
        plan = contend(one, overlay, (1,), corpus, stage, (stage,), planner).plans[1]
        keys.append(plan[-1].key)
        if len(keys) <= 1000 and store.find(plan[-1].key) is None:
            publish(store, plan[-1])
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CADDIE_", "MLFLOW_"))}
    command = [sys.executable, "-m", "sweeps", "sweep", "slot", "--seeds", "1", "--no-record", "--space"]
    started = time.monotonic()
    driver = subprocess.Popen(
        [*command, f"score.slot.lr={axis}", "--space", f"score.slot.steps={spec.config.score.slot.steps}", *words],
        cwd=ROOT,
        env=environ | {"CADDIE_HOME": str(home)},
    )
    while not any((home / "attempts" / keys[-1]).glob("*/job.json")) and driver.poll() is None:
        time.sleep(0.02)
    launched = time.monotonic() - started
    driver.wait()
    return {"launched_s": launched, "wall_s": time.monotonic() - started}


def measure_statistics() -> dict[str, float]:
    """10,000 runs: mean, sd, interval of 3,334 configs, and their paired differences to one with p."""
    draw = random.Random(1)
    samples = [Sample(values={seed: draw.gauss(1.08, 0.0007) for seed in range(3)}) for _ in range(3334)]
    base = samples[0]
    started = time.perf_counter()
    for sample in samples:
        paired = sample.minus(base)
        _ = (sample.mean, sample.sd, sample.ci95, paired.mean, paired.ci95, paired.p_below)
    return {"runs": 3 * len(samples), "took_s": time.perf_counter() - started}


def main(words: Sequence[str] | None = None) -> None:
    """Measure one thing; figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["trials", "chain", "cached", "restart", "statistics"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--stage-s", type=float, default=1.0)
    args = parser.parse_args(words)
    if args.what == "trials":
        found = measure_trials(args.trials, args.slots, args.stage_s)
    elif args.what == "statistics":
        found = measure_statistics()
    else:
        with tempfile.TemporaryDirectory(prefix="caddie-bench-") as home:
            measure = {"chain": measure_chain, "cached": measure_cached, "restart": measure_restart}[args.what]
            found = measure(Path(home))
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
