"""How long a plan of 10,000 trials takes: overlays checked, keys worked out, the store asked, reasons and costs given.

python tests/bench/plan_trials.py [--finished 1000]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model.stages import Stage
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, contend
from service.plan import many_objects, plan_experiment
from service.spec import SweepSpec
from service.stages import Planner
from sweeps.recipes.tiny import tiny
from tests.bench.no_stages import CORPUS, publish

GRID = SweepSpec(
    name="bench",
    recipe="tiny",
    space={"score.slot.lr": tuple(i / 1000 for i in range(1, 101)), "score.slot.steps": tuple(range(1, 101))},
)


def experiment_of(seeds: Sequence[int]) -> Experiment:
    """10,000 SLOT configs and the base, as ``caddie plan`` makes them."""
    base, planner = tiny(), Planner(CORPUS)
    with many_objects():
        contenders = [contend(base, {}, seeds, CORPUS, Stage.SLIDING, (Stage.SLIDING,), planner)]
        for stage, overlay, spec in GRID.specs(base):
            contenders.append(contend(spec, overlay, seeds, CORPUS, stage, (stage,), planner))
    return Experiment(name="bench", seeds=tuple(seeds), contenders=tuple(contenders), search=True)


def measure(store: FolderStore, seeds: Sequence[int]) -> dict[str, float]:
    """Wall and CPU seconds of one plan, as JSON data and all."""
    wall, cpu = time.perf_counter(), time.process_time()
    experiment = experiment_of(seeds)
    made = time.perf_counter() - wall
    with many_objects():
        plan = plan_experiment(experiment, store).to_json()
    return {
        "trials": len(experiment.contenders) - 1,
        "stages": len(plan["stages"]),
        "cached": plan["cached"],
        "keys_s": round(made, 3),
        "plan_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
    }


def main() -> None:
    """Print one row for each number of seeds: the fastest of three, for the machine is shared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=0, help="SLOT stages that the store holds already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caddie-bench-") as folder:
        store = FolderStore(Path(folder))
        plans = [plan for contender in experiment_of((1,)).contenders for plan in contender.plans.values()]
        for planned in {one.key: one for plan in plans[: options.finished] for one in plan}.values():
            publish(store, planned)
        for seeds in ((1,), (1, 2, 3)):
            print(json.dumps(min((measure(store, seeds) for _ in range(3)), key=lambda row: row["plan_s"])))


if __name__ == "__main__":
    main()
