"""``python leash.py SIGNAL COMMAND...``: become COMMAND, but die by SIGNAL when the parent dies, however it dies.

torchrun puts each rank in a session of its own and Ray kills an actor's direct child only, so that without a leash on
both the agent and the ranks a killed actor leaves them running. The parent writes its pid to LEASH_PARENT before it
starts us; a parent that died before the leash was on is noticed by comparing. Runs as a script, imports next to
nothing: it starts in some 15 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent = int(os.environ["LEASH_PARENT"])
    name, command = sys.argv[1], sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.Signals[f"SIG{name}"])
    if os.getppid() != parent:
        sys.exit(f"leash: parent {parent} is gone")
    os.environ["LEASH_PARENT"] = str(os.getpid())
    os.execvp(command[0], command)
