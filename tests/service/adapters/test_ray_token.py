from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from service.source import ROOT

# In a process of its own: it sets variables for good, and refuses where ray is imported already.
SCRIPT = """
import json, os, stat, sys
from pathlib import Path
from service.adapters.ray_token import use_own_token
os.umask(0)
home = Path(sys.argv[1])
seen = []
for _ in range(2):
    use_own_token(home)
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    seen.append([os.environ["RAY_AUTH_MODE"], str(path), stat.S_IMODE(path.stat().st_mode), path.read_text()])
print(json.dumps([seen, sorted(p.name for p in home.iterdir())]))
"""


def in_a_process(home: Path, script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, str(home)], cwd=ROOT, capture_output=True, text=True)


def test_the_token_is_the_user_s_alone_and_stays_the_same(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there" / "yet"
    first, names = json.loads(in_a_process(home).stdout)
    again, _ = json.loads(in_a_process(home).stdout)
    assert first[0] == first[1] == again[0]
    mode, path, permissions, token = first[0]
    assert mode == "token"
    assert Path(path).parent == home
    assert permissions == 0o600
    assert len(bytes.fromhex(token)) == 32
    assert names == [Path(path).name], "no other file with the secret in it is left"


def test_every_home_has_a_token_of_its_own(tmp_path: Path) -> None:
    tokens = {json.loads(in_a_process(tmp_path / name).stdout)[0][0][3] for name in ("a", "b")}
    assert len(tokens) == 2


def test_it_is_too_late_once_ray_is_imported(tmp_path: Path) -> None:
    late = "import sys, types; sys.modules['ray'] = types.ModuleType('ray')\n" + SCRIPT
    done = in_a_process(tmp_path, late)
    assert done.returncode != 0
    assert "AssertionError: ray reads its authentication settings once" in done.stderr
    assert list(tmp_path.iterdir()) == []
