"""What SLOT and test-time training gain over sliding, three seeds, paired: docs/slot_study.md.

python sweeps/study_sweep.py
"""

import sys
from pathlib import Path

# The source beside this script comes first, also where another version is installed, as in a job's working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.__main__ import main

if __name__ == "__main__":
    main(["sweep", "study", *sys.argv[1:]])
