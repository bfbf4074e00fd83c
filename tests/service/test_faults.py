from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from service.faults import PLAN, Point, fault
from service.source import ROOT

FAULTS = Path("service/faults.py")
COMES_BY = """
import sys
from service.faults import Point, fault
for _ in range(int(sys.argv[1])):
    fault(Point.PUBLISHED)
print("came by")
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "strikes.json"
    path.write_text("[]", encoding="utf-8")
    monkeypatch.setenv(PLAN, str(path))
    return path


def arm(plan: Path, do: str, hit: int = 1) -> None:
    plan.write_text(json.dumps([{"point": "published", "hit": hit, "do": do}]), encoding="utf-8")


def elsewhere(times: int) -> subprocess.CompletedProcess[str]:
    """Another process that comes by so often."""
    return subprocess.run([sys.executable, "-c", COMES_BY, str(times)], cwd=ROOT, capture_output=True, text=True)


def test_without_the_variable_nothing_happens_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PLAN, raising=False)
    monkeypatch.chdir(tmp_path)
    for point in Point:
        fault(point)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_the_error_of_the_system_and_names_the_point(plan: Path) -> None:
    arm(plan, "full")
    fault(Point.COMPLETE)
    with pytest.raises(OSError, match="struck at published") as caught:
        fault(Point.PUBLISHED)
    assert caught.value.errno == errno.ENOSPC
    fault(Point.PUBLISHED)


def test_an_unexpected_error_is_one(plan: Path) -> None:
    arm(plan, "error")
    with pytest.raises(RuntimeError, match="struck at published"):
        fault(Point.PUBLISHED)


def test_a_killed_process_dies_at_once_and_by_sigkill(plan: Path) -> None:
    arm(plan, "kill", hit=2)
    struck = elsewhere(2)
    assert (struck.returncode, struck.stdout) == (-signal.SIGKILL, "")
    assert sorted(path.name for path in plan.with_suffix(".hits").iterdir()) == [
        "published.1",
        "published.2",
        "published.2.struck",
    ]


def test_a_process_that_hangs_stays_there_until_it_is_killed(plan: Path) -> None:
    arm(plan, "hang")
    stays = subprocess.Popen([sys.executable, "-c", COMES_BY, "1"], cwd=ROOT, stdout=subprocess.PIPE)
    mark = plan.with_suffix(".hits") / "published.1.struck"
    while not mark.exists():
        assert stays.poll() is None
    stays.kill()
    assert stays.communicate()[0] == b""


def test_a_deed_that_there_is_none_is_refused_by_name(plan: Path) -> None:
    arm(plan, "none")
    fault(Point.PUBLISHED)
    arm(plan, "burn", hit=2)
    with pytest.raises(ValueError, match="'burn' is none of kill, full"):
        fault(Point.PUBLISHED)


def test_hits_are_counted_over_processes_and_a_strike_happens_once(plan: Path) -> None:
    arm(plan, "kill", hit=5)
    assert [elsewhere(2).returncode for _ in range(4)] == [0, 0, -signal.SIGKILL, 0]
    numbers = {int(path.suffix[1:]) for path in plan.with_suffix(".hits").glob("published.*[0-9]")}
    assert numbers == set(range(1, 8))


def test_hits_of_processes_that_come_by_at_once_all_have_numbers_of_their_own(plan: Path) -> None:
    many = [
        subprocess.Popen([sys.executable, "-c", COMES_BY, "50"], cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(3)
    ]
    assert [one.wait() for one in many] == [0, 0, 0]
    assert len(os.listdir(plan.with_suffix(".hits"))) == 150


def test_every_point_is_come_by_at_one_place_of_the_source_and_no_other() -> None:
    named: Counter[str] = Counter()
    for path in (ROOT / "service").rglob("*.py"):
        if path != ROOT / FAULTS:
            named.update(re.findall(r"^\s+fault\(Point\.([A-Z_]+)\)", path.read_text(encoding="utf-8"), re.M))
    assert named == Counter(point.name for point in Point)
