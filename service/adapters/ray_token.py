"""The secret of a local Ray of ours. Apart from the other Ray files because it must be set before ray is imported."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path


def use_own_token(home: Path) -> None:
    """Have the Ray that this process starts ask for a token that only this user can read.

    Left alone, ray.init writes one to the user's home and so changes how every later Ray on the machine behaves.
    """
    assert "ray" not in sys.modules, "ray reads its authentication settings once, when it is imported"
    token = home / "ray_token"
    if not token.exists():
        home.mkdir(parents=True, exist_ok=True)
        scratch = token.with_name(f".{token.name}.{os.getpid()}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        os.replace(scratch, token)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
