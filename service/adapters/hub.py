"""The hub of huggingface_hub as the place that FineWeb's shards come from.

Its own ``hf_hub_download`` throws a half-fetched file away; here it stays as ``.NAME.ETAG.part`` and the next call
asks for the rest by a Range. HF_ENDPOINT names another server, HF_TOKEN who asks.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    HTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from service.corpus.prepare import Progress
from service.errors import CorpusError

KIND = "dataset"
TOLD_EVERY_S = 10.0
SHA256 = re.compile(r"[0-9a-f]{64}")


class HuggingFaceHub:
    """Files of datasets, over HTTP."""

    def __init__(self, endpoint: str | None = None) -> None:
        """``endpoint`` is another server than the library's own."""
        self.endpoint = endpoint
        disable_progress_bars()

    def commit(self, repository: str, revision: str | None) -> str:
        """The commit that ``revision`` is; None: the newest.

        Raises:
            CorpusError: there is none, or the hub can't be reached.
        """
        try:
            found = HfApi(endpoint=self.endpoint).repo_info(repository, revision=revision, repo_type=KIND)
        except (HTTPError, OSError) as error:
            raise self._refused(repository, revision or "main", "", error) from error
        return str(found.sha)

    def fetch(self, repository: str, commit: str, path: str, to: Path, progress: Progress) -> None:
        """Bring a file to ``to``; a part of it that is here is gone on from.

        Raises:
            ValueError: what came has another size or SHA-256 than the hub says.
            CorpusError: it isn't there, or the hub can't be reached; what came so far stays.
        """
        url = hf_hub_url(repository, path, repo_type=KIND, revision=commit, endpoint=self.endpoint)
        headers = build_hf_headers()
        try:
            about = get_hf_file_metadata(url, headers=headers, endpoint=self.endpoint, retry_on_errors=True)
            if about.etag is None:
                raise ValueError(f"{path}: the hub gives no ETag")
            part = to.with_name(f".{to.name}.{re.sub(r'[^0-9A-Za-z]', '', about.etag)[:64]}.part")
            for stale in set(to.parent.glob(f".{to.name}.*.part")) - {part}:
                stale.unlink()
            if urlsplit(about.location).netloc != urlsplit(url).netloc:
                headers.pop("authorization", None)  # a signed address elsewhere: our token is none of its business
            with open(part, "ab") as file:
                have = file.tell()
                if about.size is not None and have > about.size:
                    have = file.truncate(0)
                http_get(
                    about.location,
                    Telling(file, to.name, have, about.size, progress),  # type: ignore[arg-type]
                    resume_size=have,
                    headers=headers,
                )
        except (HTTPError, OSError) as error:
            raise self._refused(repository, commit, path, error) from error
        self._check(part, path, about.etag, about.size)
        os.replace(part, to)

    def _check(self, part: Path, path: str, etag: str, size: int | None) -> None:
        """Refuse, and throw away, what isn't what was promised."""
        found = part.stat().st_size
        problem = ""
        if size is not None and found != size:
            problem = f"{path}: {found} bytes came, the hub says {size}"
        elif SHA256.fullmatch(etag):
            with open(part, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != etag:
                problem = f"{path}: SHA-256 {digest}, the hub says {etag}"
        if problem:
            part.unlink()
            raise ValueError(problem)

    def _refused(self, repository: str, revision: str, path: str, error: Exception) -> CorpusError:
        """What to tell of ``error``, with the way out."""
        what = f"{repository}@{revision[:12]}{'/' if path else ''}{path}"
        if isinstance(error, RemoteEntryNotFoundError):
            return CorpusError(f"{what}: no such file; ask for fewer --shards, or for another --revision")
        if isinstance(error, RevisionNotFoundError):
            return CorpusError(f"{what}: no such revision; --revision names another")
        if isinstance(error, RepositoryNotFoundError):
            return CorpusError(f"{what}: no such repository for who asks; HF_TOKEN says who that is")
        if isinstance(error, OfflineModeIsEnabled):
            return CorpusError(f"{what}: HF_HUB_OFFLINE is set; unset it to fetch")
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, HTTPError):
            return CorpusError(f"{what}: can't be written ({error}); CADDIE_HOME sets another place")
        return CorpusError(
            f"{what}: the hub can't be reached or broke off ({str(error).splitlines()[0] if str(error) else error!r}); "
            "the same command goes on from here, and HF_ENDPOINT names another server"
        )


class Telling:
    """A file that says now and then how far it is."""

    def __init__(self, file: BinaryIO, name: str, have: int, size: int | None, progress: Progress) -> None:
        self.file, self.name, self.have, self.size, self.progress = file, name, have, size, progress
        self.told_s = time.monotonic()
        if have:
            progress(f"{name}: going on from {have:,} bytes")

    def write(self, data: bytes) -> int:
        """Append, and keep it if we are interrupted."""
        self.have += len(data)
        written = self.file.write(data)
        self.file.flush()
        if time.monotonic() - self.told_s > TOLD_EVERY_S:
            self.told_s = time.monotonic()
            self.progress(f"{self.name}: {self.have:,}{f' of {self.size:,}' if self.size else ''} bytes")
        return written

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, place: int) -> int:
        self.have = place
        return self.file.seek(place)

    def truncate(self) -> int:
        return self.file.truncate()
