from __future__ import annotations

import platform
import socket
import subprocess
import sys
from importlib.metadata import version

from service.source import ROOT

# In a process of its own: importing ray takes a second and sets variables for good.
SCRIPT = """
import sys
from importlib.metadata import version
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


MISMATCH = """
import sys
from importlib.metadata import version
from ray._private.utils import check_version_info
from service.adapters.ray_cluster import version_mismatch
try:
    check_version_info({"ray_version": "2.48.0", "python_version": "3.9.18"}, "node 10.0.0.2")
except RuntimeError as error:
    print(version_mismatch("10.0.0.1:6379", str(error)))
    print(repr(version_mismatch("10.0.0.1:6379", "no space left for Ray: 1 and Python: 2")))
"""


def test_ray_s_own_words_on_versions_become_a_line_with_both_and_the_way_out() -> None:
    done = subprocess.run([sys.executable, "-c", MISMATCH], cwd=ROOT, capture_output=True, text=True, timeout=60)
    said, other = done.stdout.splitlines()
    python = platform.python_version()
    assert "'10.0.0.1:6379' runs Ray 2.48.0 on Python 3.9.18" in said
    assert f"this is Ray {version('ray')} on Python {python}" in said
    assert "ray==2.48.0 under Python 3.9.18" in said
    assert other == "''"
