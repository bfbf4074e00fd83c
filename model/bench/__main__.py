"""``python -m model.bench NAME``: the figures of one bench as JSON; progress on stderr."""

from __future__ import annotations

import argparse
import json

from model.bench.slot import measure

BENCHES = {"slot": measure}


def run_bench() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m model.bench", description=__doc__)
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--pairs", type=int, default=5, help="how often both sides are timed")
    args = parser.parse_args()
    print(json.dumps(BENCHES[args.bench](args.threads, args.pairs), indent=1))


if __name__ == "__main__":
    run_bench()
