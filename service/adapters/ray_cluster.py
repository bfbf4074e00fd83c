"""Joins a Ray cluster that runs, or starts one of our own for the time of a command and stops only that."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator

# Set before ray is imported: an actor without GPUs leaves CUDA_VISIBLE_DEVICES as it is.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from service.adapters import guard as guard_script
from service.adapters.ray_knock import knock
from service.errors import ClusterError
from service.spec import GangShape

MEMORY_PER_TRIAL = 32 * 2**20
"""What a Tune trial reserves, in bytes: it only waits for gangs, so it must not hold a CPU that a gang needs."""
VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
"""In Ray's own error, the cluster's and then ours."""


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to the cluster at ``address``, or to a private local one.

    Raises:
        ClusterError: nothing answers at ``address``, or a Ray of another version does.
    """
    on_term = signal.getsignal(signal.SIGTERM)
    with _joined(address) if address else _private():
        signal.signal(signal.SIGTERM, on_term)  # ray.init puts its own in place, which leaves without cleaning up
        yield


def check_gang(gang: GangShape) -> None:
    """Refuse a gang that no node of the cluster can ever hold, instead of waiting for it forever.

    Raises:
        ClusterError: with what was asked for and what the largest node has.
    """
    if places_for(gang) > 0:
        return
    wanted = wanted_by(gang)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(nodes, key=lambda node: [node.get(name, 0) for name in ("GPU", "CPU")])
    raise ClusterError(
        f"a gang of {gang.ranks} ranks needs {_show(wanted)} on one node; the largest of {len(nodes)} node(s) has "
        f"{_show({name: largest.get(name, 0) for name in wanted})}. Set gang.ranks or gang.threads lower"
        + (", or gang.device=cpu" if gang.device == "cuda" else "")
    )


def places_for(gang: GangShape, apart: Collection[str] = ()) -> int:
    """How many gangs of this shape the cluster's nodes hold side by side when nothing else runs; nodes whose name is
    in ``apart`` hold none."""
    wanted = wanted_by(gang)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeName"] not in apart]
    return sum(int(min(node.get(name, 0) / amount for name, amount in wanted.items())) for node in nodes)


def wanted_by(gang: GangShape) -> dict[str, float]:
    """Resources of a whole gang, on one node."""
    return {name: amount * gang.ranks for name, amount in gang.bundle.items()}


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    knock(address)
    try:
        # Workers import what the driver imports; a job's working directory reaches them by Ray's own means.
        ray.init(address=address, namespace="caddie", log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise ClusterError(
            version_mismatch(address, str(error)) or f"no Ray cluster at {address!r}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def version_mismatch(address: str, error: str) -> str:
    """What to say of Ray's own error about versions; empty when it is about something else."""
    versions = VERSIONS.findall(error)
    if "mismatch" not in error or len(versions) < 2:
        return ""
    (its_ray, its_python), (our_ray, our_python) = versions[:2]
    return (
        f"the Ray cluster at {address!r} runs Ray {its_ray} on Python {its_python}, and this is Ray {our_ray} on "
        f"Python {our_python}: they must be the same. Use ray=={its_ray} under Python {its_python} here, or start the "
        "cluster from this environment, or from an image of docker/"
    )


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """A local Ray with a folder of its own, so that it neither meets nor disturbs another one."""
    # Short on purpose: Ray puts sockets below it, and their paths have 107 bytes at most.
    scratch_folder = tempfile.mkdtemp(prefix="caddie-", dir="/tmp")
    guard = subprocess.Popen(
        [sys.executable, "-SE", guard_script.__file__, scratch_folder], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        ray.init(
            address="local",
            namespace="caddie",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            object_store_memory=100 * 2**20,
            _temp_dir=scratch_folder,
            # Ray's own is 15: whatever else runs would come before the ranks, whose clock is what we measure.
            _system_config={"worker_niceness": 0},
        )
        yield
    finally:
        ray.shutdown()
        guard.communicate()


def _show(resources: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
