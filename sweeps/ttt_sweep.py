"""Epochs and rate of test-time training over three seeds, on the same artifacts.

    python sweeps/ttt_sweep.py                                  # starts a local Ray and ends it
    ray job submit --working-dir . -- python sweeps/ttt_sweep.py

Options are those of ``caddie sweep``.
"""

import sys
from pathlib import Path

# The source beside this script comes first, also where another version is installed, as in a job's working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.__main__ import main

if __name__ == "__main__":
    main(["sweep", "ttt", *sys.argv[1:]])
