"""The start value of QK gain over three seeds: one training per value and seed.

    python sweeps/qk_gain_sweep.py                                  # starts a local Ray and ends it
    ray job submit --working-dir . -- python sweeps/qk_gain_sweep.py

Options are those of ``caddie sweep``.
"""

import sys
from pathlib import Path

# The source beside this script comes first, also where another version is installed, as in a job's working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.__main__ import main

if __name__ == "__main__":
    main(["sweep", "qk_gain", *sys.argv[1:]])
