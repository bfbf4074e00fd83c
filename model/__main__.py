"""``python -m model STAGE --job job.json --out DIR``: one rank of one stage, started by torchrun.

``python -m model run`` takes the same job through the whole chain in one gang; ``preflight`` looks at the node.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
from pathlib import Path


def main() -> None:
    """Parse, and do a rank's work."""
    # What imports make stays until the end: to look through it takes a third of their time, to free it half a second.
    gc.disable()
    atexit.register(gc.freeze)
    everything = importlib.import_module("model.rank")
    gc.freeze()
    gc.enable()
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    parser.add_argument("stage", choices=everything.WORK)
    parser.add_argument("--job", type=Path, required=True, help="job.json, as the service writes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for outputs and report.json")
    parser.add_argument("--code-bytes", type=int, default=0, help="size of the code that ships (run only)")
    args = parser.parse_args()
    everything.work(args.stage, args.job, args.out, int(os.environ.get("RANK", "0")), args.code_bytes)


if __name__ == "__main__":
    main()
