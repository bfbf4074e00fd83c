"""Writes docker/.env, which only its owner may read: .env.example with a random secret for every empty value."""

import os
import re
import secrets
import sys
from pathlib import Path

here = Path(__file__).parent
text = re.sub(r"(?m)^(\w+)=$", lambda line: line[0] + secrets.token_hex(24), (here / ".env.example").read_text())
try:
    handle = os.open(here / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
except FileExistsError:
    sys.exit(f"{here / '.env'} is there already: a running cluster knows its secrets, remove it by hand")
with os.fdopen(handle, "w") as file:
    file.write(text)
