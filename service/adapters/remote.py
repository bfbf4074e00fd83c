"""A folder on S3 or a file system through fsspec: whole objects, and creating one that isn't there yet, atomically.

Every refusal becomes a StoreError that names the place and the way out, after seconds and not minutes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from service.errors import StoreError

S3_OPTIONS: Mapping[str, Any] = {
    "use_listings_cache": False,  # others write there, too
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 20,
        "retries": {"mode": "standard", "total_max_attempts": 3},
    },
}
PROBE = ".created-once"
"""An object that shows whether the server keeps the one promise that locks stand on."""
S3_TRIES = 2
"""How often s3fs itself asks again what botocore has given up."""


class Remote:
    """Objects below ``url``, by names with slashes; any number of processes and machines may share it."""

    def __init__(self, url: str) -> None:
        """Joins the place and asks it once.

        Raises:
            StoreError: it isn't there, refuses us, or is of a kind without exclusive creation.
        """
        self.url = re.sub(r"//[^/@]*@", "//", url.rstrip("/"))  # no login in messages
        protocol = url.partition("://")[0]
        if "://" not in url or protocol not in ("s3", "s3a", "file"):
            raise StoreError(
                f"CADDIE_STORE {self.url!r}: s3://BUCKET/FOLDER or file:///FOLDER is needed, where a file can be "
                "created only if it isn't there"
            )
        self.on_s3 = protocol != "file"
        try:
            with self._asking("can't be joined"):
                self.files, root = fsspec.url_to_fs(url.rstrip("/"), **(S3_OPTIONS if self.on_s3 else {}))
        except ImportError as error:
            raise StoreError(f"{self.url}: {error} - pip install 'caddie[s3]'") from error
        self.root = str(root)
        if self.on_s3:
            self.files.retries = S3_TRIES
        self._knock()

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None when there is none."""
        with self._asking(name), contextlib.suppress(FileNotFoundError):
            return bytes(self.files.cat_file(self._path(name)))
        return None

    def read_all(self, names: Collection[str]) -> dict[str, bytes]:
        """Many small objects at once, those that are there."""
        if not names:
            return {}
        paths = {self._path(name): name for name in names}
        with self._asking(f"{len(names)} objects"):
            found = self.files.cat(list(paths), on_error="return")
            for error in found.values():
                if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                    raise error
        return {paths[path]: bytes(data) for path, data in found.items() if not isinstance(data, Exception)}

    def write(self, name: str, data: bytes) -> None:
        """Put an object there, whole, over what was there."""
        with self._asking(name):
            if self.on_s3:
                self.files.pipe_file(self._path(name), data)
            else:
                with self._scratch(name) as scratch:
                    scratch.write_bytes(data)
                    os.replace(scratch, self._path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Put an object there unless there is one: of all who try at once, exactly one gets True."""
        with self._asking(name):
            try:
                if self.on_s3:
                    self.files.pipe_file(self._path(name), data, mode="create")
                else:
                    with self._scratch(name) as scratch:
                        scratch.write_bytes(data)
                        os.link(scratch, self._path(name))
            except OSError as error:
                if not _is_there(error):
                    raise
                return False
        return True

    def send(self, source: Path, name: str) -> None:
        """Upload a file, over what was there."""
        with self._asking(name):
            if self.on_s3:
                self.files.put_file(str(source), self._path(name))
            else:
                with self._scratch(name) as scratch:
                    self.files.put_file(str(source), str(scratch))
                    os.replace(scratch, self._path(name))

    def fetch(self, name: str, target: Path) -> None:
        """Download a file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._asking(name):
            self.files.get_file(self._path(name), str(target))

    def delete(self, name: str) -> None:
        """Take an object away, if it is there."""
        with self._asking(name), contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    def listing(self, folder: str) -> dict[str, float]:
        """Names of the objects right below ``folder``, each with the Unix time at which it was written."""
        rows: dict[str, float] = {}
        with self._asking(folder), contextlib.suppress(FileNotFoundError):
            if self.on_s3:
                found = self.files.ls(self._path(folder), detail=True, refresh=True)
                rows = {one["name"].rpartition("/")[2]: _written_s(one) for one in found if one["type"] == "file"}
            else:
                for path in Path(self._path(folder)).iterdir():
                    with contextlib.suppress(FileNotFoundError):  # gone meanwhile; the others are still there
                        if path.is_file():
                            rows[path.name] = path.stat().st_mtime
        return {name: at_s for name, at_s in rows.items() if name and not name.startswith(".")}

    def written_s(self, name: str) -> float:
        """When an object was written, as Unix time of the server.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._asking(name):
            return _written_s(self.files.info(self._path(name)))

    def now_s(self) -> float:
        """Unix time of the server, to compare with what else it has written."""
        self.write(".now", b"")
        return self.written_s(".now")

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextlib.contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        """A file beside ``name`` on a file system, which readers never see half."""
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)

    def _knock(self) -> None:
        with self._asking("can't be listed"):
            if not self.on_s3:
                Path(self.root).mkdir(parents=True, exist_ok=True)
                return
            bucket, prefix, _ = self.files.split_path(self.root)
            try:
                self.files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
            except FileNotFoundError as error:
                raise StoreError(
                    f"{self.url}: there is no bucket {bucket!r} - create it, or mend CADDIE_STORE"
                ) from error
        if self.create(PROBE, b"") and self.create(PROBE, b""):
            raise StoreError(f"{self.url}: this server ignores 'If-None-Match: *', so that nothing can be locked there")

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError, ImportError, StoreError):
            raise
        except Exception as error:  # botocore's, aiohttp's and s3fs's errors have no base in common
            reason = str(error).strip() or type(error).__name__
            raise StoreError(f"{self.url}: {what}: {reason} - {_way_out(error, self.on_s3)}") from error


def _is_there(error: OSError) -> bool:
    """Whether a creation was refused because another's came first, or comes at this very moment."""
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code", "")
    return isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412", "ConditionalRequestConflict")


def _written_s(info: Mapping[str, Any]) -> float:
    at = info.get("LastModified", info.get("mtime"))
    return at.timestamp() if isinstance(at, datetime) else float(at or 0.0)


def _way_out(error: Exception, on_s3: bool) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space and run the same command again"
    if not on_s3:
        return "CADDIE_STORE sets another place"
    kind = type(error).__name__
    if isinstance(error, PermissionError) or "Credential" in kind:
        return "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) and the bucket's policy"
    return "is the server up, are AWS_ENDPOINT_URL and CADDIE_STORE right? Run the same command again then"
