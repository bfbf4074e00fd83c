"""QK gain, SLOT and test-time training together: some trials drawn from their product, over three seeds.

    python sweeps/combined_sweep.py                                  # starts a local Ray and ends it
    ray job submit --working-dir . -- python sweeps/combined_sweep.py

Options are those of ``caddie sweep``.
"""

import sys
from pathlib import Path

# The source beside this script comes first, also where another version is installed, as in a job's working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.__main__ import main

if __name__ == "__main__":
    main(["sweep", "combined", *sys.argv[1:]])
