"""Posts documents to CADDIE_WEBHOOK_URL. The address is a secret, as Slack's are: only its host is ever shown."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

TIMEOUT_S = 5.0
TRIES = 2


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere becomes a GET there, which tells nobody anything."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook:
    """Announces by POST; what goes wrong is one line to ``tell``."""

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        self.url, self.tell = url, tell
        self.opener = urllib.request.build_opener(_NoRedirect)

    def post(self, document: Mapping[str, Any]) -> None:
        """Send ``document`` as JSON, twice when the first time fails."""
        body = json.dumps(document, allow_nan=False).encode()
        request = urllib.request.Request(
            self.url,
            data=body,
            headers={"Content-Type": "application/json", "User-Agent": "caddie"},
            method="POST",
        )
        why = ""
        for _ in range(TRIES):
            try:
                with self.opener.open(request, timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                why = f"{error.code} {error.reason}"
                error.close()
            except (OSError, http.client.HTTPException, ValueError) as error:
                why = str(getattr(error, "reason", "") or error) or type(error).__name__
        host = urllib.parse.urlsplit(self.url).hostname
        self.tell(f"webhook: {host} was not told that {document['experiment']} {document['event']}: {why}")
