"""Racing against the whole grid, replayed from the field's records: prints a table.

python tests/bench/racing.py [REPLAYS]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from service.racing import Racing
from service.replay import Draw, Replayed, draw_knobs, draw_neighbours, draw_records, draw_scores, replay

RULES = {
    "test, half the runs": Racing(),
    "test alone": Racing(share=1.0),
    "asha, eta 3": Racing(rule="asha"),
}
SWEEPS: dict[str, tuple[Draw, tuple[int, ...]]] = {
    "records (unpaired)": (draw_records, (4, 8, 12)),
    "scores of records (partly paired)": (draw_scores, (4, 8, 16)),
    "knobs of evaluation (paired)": (draw_knobs, (4, 8, 16)),
    "neighbours in training (unpaired)": (draw_neighbours, (4, 8, 16)),
}


def unpaired(draw: Draw) -> Draw:
    """The same sweeps, for a race that isn't told which artifacts are shared."""
    return lambda dice, configs, seeds: replace(draw(dice, configs, seeds), artifacts=list(range(configs)))


def row(name: str, configs: int, seeds: int, rule: str, done: Replayed) -> str:
    """One line of the table."""
    return (
        f"| {name} | {configs} x {seeds} | {rule} | {100 * done.same_share:.1f} ± {100 * done.error:.1f} "
        f"| {100 * done.runs:.0f} | {100 * done.both / done.replays:.1f} | {done.regret_bpb:.6f} "
        f"| {done.flattery_bpb:.5f} |"
    )


def main(replays: int) -> None:
    """Print every setting's figures."""
    print(f"{replays} replays each")
    print("| sweep | configs x seeds | rule | same winner, % | runs, % | both, % | regret, bpb | flattery, bpb |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (draw, counts) in SWEEPS.items():
        for seeds in (3, 5):
            for configs in counts:
                for rule, racing in RULES.items():
                    print(row(name, configs, seeds, rule, replay(draw, racing, configs, seeds, replays)), flush=True)
                if draw is draw_knobs:
                    blind = replay(unpaired(draw), RULES["test alone"], configs, seeds, replays)
                    print(row(name, configs, seeds, "test alone, pairing not told", blind), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
