"""Says what is wrong with KubeRay's manifests in this repository."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from service.spec import GangShape

SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text(encoding="utf-8"))
HOME = "/caddie"
SOURCE = "/opt/caddie"
"""Where the images have CADDIE_HOME and the source."""


def problems(
    manifest: Mapping[str, Any], root: Path, images: Mapping[str, str], ray: str, gang: GangShape
) -> list[str]:
    """What is wrong. ``images`` are those of head and worker, ``ray`` is the version, ``gang`` the recipe's."""
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(dict(manifest))
    found = [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
    if found:
        return found
    spec = manifest["spec"]
    if manifest["kind"] == "RayJob":
        found += _entrypoint_problems(spec["entrypoint"], root)
        spec = spec.get("rayClusterSpec", {})
    if spec["rayVersion"] != ray:
        found.append(f"Ray {spec['rayVersion']}, constraints.txt has {ray}")
    head = spec["headGroupSpec"]
    if head["rayStartParams"].get("num-cpus") != "0":
        found.append("gangs may land on the head")
    found += _pod_problems("head", head["template"]["spec"], "ray-head", images["head"])
    for group in spec["workerGroupSpecs"]:
        name, pod = group["groupName"], group["template"]["spec"]
        found += _pod_problems(name, pod, "ray-worker", images["worker"])
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] or group["minReplicas"] < 1:
            found.append(f"{name}: a sweep needs a node from its first moment")
        limits = pod["containers"][0]["resources"]["limits"]
        if limits.get("nvidia.com/gpu") != str(gang.ranks):
            found.append(f"{name}: {limits.get('nvidia.com/gpu')} GPUs, a gang has {gang.ranks} ranks")
        if int(limits["cpu"]) < gang.ranks * gang.threads:
            found.append(f"{name}: {limits['cpu']} CPUs, a gang needs {gang.ranks * gang.threads}")
        if gang.hardware.split("-")[0] not in "".join(pod.get("nodeSelector", {}).values()):
            found.append(f"{name}: not bound to nodes with {gang.hardware}")
    return found


def _entrypoint_problems(entrypoint: str, root: Path) -> list[str]:
    program, script, *_ = [*shlex.split(entrypoint), ""]
    path = root / script.removeprefix(SOURCE + "/")
    if program != "python" or not script.startswith(f"{SOURCE}/sweeps/") or not path.is_file():
        return [f"{entrypoint!r} runs no script of sweeps/"]
    return []


def _pod_problems(name: str, pod: Mapping[str, Any], container_name: str, image: str) -> list[str]:
    container = pod["containers"][0]
    found = []
    if container["name"] != container_name:
        found.append(f"{name}: the first container is {container['name']!r}, not {container_name!r}")
    if container["image"] != image:
        found.append(f"{name}: image {container['image']!r}, built is {image!r}")
    resources = container["resources"]
    if resources["limits"] != resources["requests"]:
        found.append(f"{name}: what it is promised isn't what it may take")
    for entry in container.get("env", []):
        if re.search(r"TOKEN|PASSWORD|SECRET|KEY", entry["name"]) and "value" in entry:
            found.append(f"{name}: {entry['name']} is written down")
    if {"name": "RAY_worker_niceness", "value": "0"} not in container.get("env", []):
        found.append(f"{name}: ranks run behind everything else")
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    found += [f"{name}: no volume {one!r}" for one in mounts.values() if one not in volumes]
    if "persistentVolumeClaim" not in volumes.get(mounts.get(HOME, ""), {}):
        found.append(f"{name}: CADDIE_HOME isn't shared")
    if volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir", {}).get("medium") != "Memory":
        found.append(f"{name}: shared memory is the default's 64 MiB")
    return found
