"""``python leash.py SIGNAL [--into=FILE] COMMAND...``: become COMMAND, but die by SIGNAL when the parent dies, however
it dies; what COMMAND prints is added to FILE.

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
    if command[0].startswith("--into="):
        file = os.open(command.pop(0).removeprefix("--into="), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
    os.execvp(command[0], command)
