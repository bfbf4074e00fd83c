"""SLOT lr x steps over three seeds, to a verified record: the main job.

    python sweeps/slot_sweep.py                                            # starts a local Ray and ends it
    ray job submit --working-dir . -- python sweeps/slot_sweep.py          # on a cluster that runs

Options are those of ``caddie sweep``: --seeds, --set, --plan, --json ...
"""

import sys
from pathlib import Path

# The source beside this script comes first, also where another version is installed, as in a job's working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.__main__ import main

if __name__ == "__main__":
    main(["sweep", "slot", *sys.argv[1:]])
