from __future__ import annotations

import socket
import subprocess
import sys

from service.source import ROOT

# In a process of its own: importing ray takes a second and sets variables for good.
SCRIPT = """
import sys
from service.adapters.ray_cluster import ray_session
from service.errors import ClusterError
try:
    with ray_session(sys.argv[1]):
        print("a cluster answered")
except ClusterError as error:
    print("ClusterError:", str(error).splitlines()[0])
"""


def test_an_address_where_nothing_listens_is_our_error_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for given in (address, "nobody"):
        command = [sys.executable, "-c", SCRIPT, given]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=15)
        assert done.stdout.startswith("ClusterError: "), done.stderr
        assert given in done.stdout
