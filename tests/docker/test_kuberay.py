"""docker/kuberay/, without a cluster: the shape of KubeRay's resources, and what only this repository can know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sweeps.recipes.core import core
from tests.docker import kuberay

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "docker/kuberay"
COMPOSE = yaml.safe_load((REPO / "docker/compose.yaml").read_text(encoding="utf-8"))["services"]
IMAGES = {"head": COMPOSE["head"]["image"], "worker": COMPOSE["gang"]["image"]}
CLUSTER = (FOLDER / "cluster.yaml").read_text(encoding="utf-8")
JOB = (FOLDER / "slot_sweep.yaml").read_text(encoding="utf-8")


def version(package: str) -> str:
    match = re.search(rf"^{package}==(.+)$", (REPO / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    return match[1]


def problems(text: str) -> list[str]:
    return kuberay.problems(yaml.safe_load(text), REPO, IMAGES, version("ray"), core().gang)


@pytest.mark.parametrize("text", [CLUSTER, JOB], ids=["cluster", "job"])
def test_manifests_have_the_operators_shape_and_the_recipes_gang(text: str) -> None:
    assert problems(text) == []


def test_a_sweeps_own_cluster_is_the_one_that_stays() -> None:
    assert yaml.safe_load(JOB)["spec"]["rayClusterSpec"] == yaml.safe_load(CLUSTER)["spec"]


def test_every_node_has_the_claimed_home() -> None:
    claim = yaml.safe_load((FOLDER / "home.yaml").read_text(encoding="utf-8"))
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    claimed = re.findall(r"claimName: ([\w-]+)", CLUSTER + JOB)
    assert len(claimed) == 4
    assert set(claimed) == {claim["metadata"]["name"]}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("ray.io/v1", "ray.io/v1alpha1", "apiVersion"),
        ("kind: RayJob", "kind: RayJobb", "kind"),
        ("  entrypoint:", "  entryPoint:", "spec: "),
        ("slot_sweep.py", "slot_swep.py", "runs no script of sweeps/"),
        ("/opt/caddie/sweeps", "/home/caddie/sweeps", "runs no script of sweeps/"),
        ("shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "shutdownAfterJobFinishes"),
        ("ttlSecondsAfterFinished: 300", "ttlSecondsAfterFinished: soon", "ttlSecondsAfterFinished"),
        ('rayVersion: "2.60.0"', 'rayVersion: "2.59.0"', "constraints.txt has"),
        ("mode: token", "mode: disabled", "authOptions"),
        ('num-cpus: "0"', 'num-cpus: "4"', "gangs may land on the head"),
        ('num-cpus: "0"', "num-cpus: 0", "rayStartParams"),
        ("workerGroupSpecs", "workerGroups", "rayClusterSpec"),
        ("name: ray-worker", "name: worker", "the first container is 'worker'"),
        ("image: caddie-gang:0.1.0", "image: caddie-gang", "built is"),
        ('nvidia.com/gpu: "8"', 'nvidia.com/gpu: "4"', "a gang has 8 ranks"),
        ('cpu: "40"', 'cpu: "16"', "a gang needs 32"),
        ('requests: {cpu: "40"', 'requests: {cpu: "4"', "what it is promised"),
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB", "not bound to nodes with H100-SXM"),
        ("minReplicas: 1", "minReplicas: 0", "from its first moment"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("capabilities: {drop: [ALL]}", "capabilities: {add: [SYS_ADMIN]}", "capabilities"),
        ("medium: Memory, ", "", "shared memory"),
        ('RAY_worker_niceness, value: "0"', 'RAY_worker_niceness, value: "15"', "ranks run behind everything else"),
        ("{name: home, mountPath: /caddie}", "{name: home, mountPath: /data}", "CADDIE_HOME isn't shared"),
        ("- {name: shm, mountPath", "- {name: shmem, mountPath", "no volume 'shmem'"),
        ("{name: NCCL_DEBUG, value: WARN}", "{name: RAY_AUTH_TOKEN, value: abc}", "RAY_AUTH_TOKEN is written down"),
    ],
)
def test_a_changed_manifest_is_refused(old: str, new: str, says: str) -> None:
    assert old in JOB
    assert says in "\n".join(problems(JOB.replace(old, new)))
