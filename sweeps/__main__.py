"""The ``caddie`` command: the service's commands with this project's recipes and sweeps."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    # What imports make stays until the end: to look through it takes a third of their time, to free it a second.
    gc.disable()
    atexit.register(gc.freeze)
    from service.cli.app import run_command
    from sweeps.recipes import RECIPES
    from sweeps.spaces import SWEEPS

    gc.freeze()
    gc.enable()
    sys.exit(run_command(list(sys.argv[1:] if words is None else words), RECIPES, SWEEPS))


if __name__ == "__main__":
    main()
