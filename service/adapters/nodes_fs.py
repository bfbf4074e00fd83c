"""What is known of nodes, as files in ``nodes/`` below the home folder: speeds measured, and who is set apart."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.report import write_json
from service.nodes import Apart, Speed


class NodeFolder:
    """Nodes below ``home``; any number of processes may share it."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "nodes"

    def apart(self, now_s: float | None = None) -> dict[str, Apart]:
        """Who is set apart now, by node."""
        now_s = time.time() if now_s is None else now_s
        found = [Apart(**data) for data in self._read("apart")]
        return {one.node: one for one in found if not one.over(now_s)}

    def set_apart(self, node: str, why: str) -> None:
        """Hire ``node`` no more."""
        self._write("apart", node, asdict(Apart(node=node, why=why, since_s=time.time())))

    def release(self, node: str) -> bool:
        """Hire ``node`` again; False when it wasn't set apart."""
        path = self._path("apart", node)
        there = path.exists()
        path.unlink(missing_ok=True)
        return there

    def speeds(self) -> list[Speed]:
        """The newest measurement of each node and kind."""
        return [Speed(**data) for data in self._read("speed")]

    def note(self, speed: Speed) -> None:
        """Keep a measurement."""
        self._write("speed", f"{speed.node} {speed.kind}", asdict(speed))

    def _read(self, what: str) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.folder.glob(f"{what}-*.json")):
            try:
                found.append(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                continue
        return found

    def _write(self, what: str, name: str, data: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(what, name), data)

    def _path(self, what: str, name: str) -> Path:
        return self.folder / f"{what}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"
