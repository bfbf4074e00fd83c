"""What each part of the house is worth at the size for two CPU cores, three seeds, paired: docs/benchmarks.md.

python sweeps/house_sweep.py
"""

import sys
from pathlib import Path

# The source beside this script comes first, also where another version is installed, as in a job's working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.__main__ import main

if __name__ == "__main__":
    main(["sweep", "house", *sys.argv[1:]])
