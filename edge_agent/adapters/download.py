# SPDX-License-Identifier: Apache-2.0
"""Fetch one blob by HTTPS, resuming where an earlier attempt ended, and believe only its SHA-256.

A blob's URL holds its hash, so it never changes; ``If-Range`` still guards against a proxy that lies. Bytes on
disk from before are hashed first. If the whole does not fit the hash and some of it was resumed, the tail may be
what a power cut left: it is fetched once more from zero, and only then refused.
"""

import errno
import hashlib
import http.client
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_agent.adapters.tls import explain
from edge_contract.errors import BundleError, DownloadError, UsageError

__all__ = ["Cancelled", "Downloader", "Throttle", "file_digest"]

CHUNK: Final = 64 * 1024
SYNC_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 20.0
_OF_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""What a socket never says: it is the card that fails, and nobody should look at the network."""


class Cancelled(Exception):  # noqa: N818 - an order, not an error
    """The order was cancelled while bytes arrived; what is on disk stays for a resume."""


class Throttle:
    """How fast bytes may come, changed from the loop while a download runs.

    Attributes:
        limit_bps: Bytes per second, 0 for no limit.
        held: Why no byte may come now; empty while they may.
    """

    def __init__(self, limit_bps: int = 0) -> None:
        self.limit_bps, self.held = limit_bps, ""
        self._due, self._lock = 0.0, threading.Lock()

    def took(self, size: int, mono: float) -> float:
        """Return how long to sleep after so many bytes, in seconds; a pause before is not made up for.

        Example:
            >>> throttle = Throttle(1000)
            >>> throttle.took(500, 100.0), throttle.took(500, 100.0), throttle.took(500, 200.0)
            (0.5, 1.0, 0.5)
        """
        if not self.limit_bps:
            return 0.0
        with self._lock:  # two models may be fetched at once, and share the link
            self._due = max(self._due, mono) + size / self.limit_bps
            return self._due - mono


@dataclass(frozen=True)
class Downloader:
    """Fetches blobs below one address.

    Attributes:
        base_url: The server's device URL, such as ``https://fleet:8443``.
        context: TLS with our certificate; None for a plain ``http://`` address, which only tests use.
        throttle: How fast bytes may come.
        wait: Sleeps so many seconds; True if the order was cancelled meanwhile.
    """

    base_url: str
    context: ssl.SSLContext | None
    throttle: Throttle
    wait: Callable[[float], bool]

    def fetch(self, sha256: str, size: int, path: Path, progress: Callable[[int], None] = lambda done: None) -> None:
        """Bring a blob to ``path``, whole and fsynced.

        Args:
            sha256: Its hash.
            size: Its size in bytes, from the signed targets.
            path: Where to; bytes that stand there are resumed.
            progress: Called with the bytes that are safe on disk.

        Raises:
            DownloadError: The network or the server failed; trying again later may help.
            BundleError: The bytes are not the blob: trying again does not help.
            Cancelled: ``wait`` said so.
        """
        resumed = _kept(path, size)
        self._fill(sha256, size, path, progress)
        if file_digest(path) == sha256:
            return
        path.unlink()
        if not resumed:
            raise BundleError(f"blob {sha256[:16]} has other bytes than its name says", where=self.base_url)
        self._fill(sha256, size, path, progress)
        if file_digest(path) != sha256:
            path.unlink()
            raise BundleError(f"blob {sha256[:16]} has other bytes than its name says", where=self.base_url)

    def _fill(self, sha256: str, size: int, path: Path, progress: Callable[[int], None]) -> None:
        offset = _kept(path, size)
        if offset == size and path.exists():
            return
        self._check_held()
        where = f"{self.base_url}/blobs/{sha256[:16]}"
        connection = self._connect()
        try:
            answer = self._ask(connection, sha256, offset)
            offset = _offset(answer, offset, size, where)
            with path.open("r+b" if offset else "wb") as file:
                file.seek(offset)
                file.truncate()
                self._copy(answer, file.fileno(), offset, size, progress)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _OF_DISK:
                fix = "free some space or change the card; it is tried again later"
                raise DownloadError(f"the disk refuses: {error.strerror}", where=str(path), fix=fix) from error
            raise explain(error, where) from error
        finally:
            connection.close()

    def _check_held(self) -> None:
        if self.throttle.held:
            raise DownloadError(self.throttle.held, where=self.base_url, fix="it goes on by itself")

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.base_url)
        if not parts.hostname:
            raise UsageError(f"'{self.base_url}' is no address", fix="write https://HOST:PORT")
        if self.context is None:
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=self.context)

    def _ask(self, connection: http.client.HTTPConnection, sha256: str, offset: int) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers.update({"Range": f"bytes={offset}-", "If-Range": f'"{sha256}"'})
        connection.request("GET", f"{urlsplit(self.base_url).path.rstrip('/')}/blobs/{sha256}", headers=headers)
        return connection.getresponse()

    def _copy(
        self, answer: http.client.HTTPResponse, handle: int, offset: int, size: int, progress: Callable[[int], None]
    ) -> None:
        synced = offset
        while offset < size:
            chunk = answer.read(min(CHUNK, size - offset))
            if not chunk:
                raise DownloadError(
                    f"cut after {offset} of {size} bytes", where=self.base_url, fix="it is resumed later"
                )
            _write_all(handle, chunk)
            offset += len(chunk)
            if offset - synced >= SYNC_BYTES or offset == size:
                os.fsync(handle)
                synced = offset
                progress(offset)
            if self.wait(self.throttle.took(len(chunk), time.monotonic())):
                os.fsync(handle)
                raise Cancelled
            if self.throttle.held and offset < size:
                os.fsync(handle)
                self._check_held()


def _kept(path: Path, size: int) -> int:
    """Return how many bytes of an earlier attempt can be used; more than the whole means another file."""
    try:
        kept = path.stat().st_size
    except OSError:
        return 0
    return kept if kept <= size else 0


def _offset(answer: http.client.HTTPResponse, asked: int, size: int, where: str) -> int:
    """Return where the body begins, after checking what the server says of it."""
    length = answer.getheader("Content-Length")
    if answer.status == 206:
        if answer.getheader("Content-Range") != f"bytes {asked}-{size - 1}/{size}":
            raise DownloadError(f"asked from byte {asked}, got {answer.getheader('Content-Range')}", where=where)
        return asked
    if answer.status != 200:
        fix = "the bundle is not on the server" if answer.status == 404 else ""
        raise DownloadError(f"the server answers {answer.status} {answer.reason}", where=where, fix=fix)
    if length is not None and length != str(size):
        # A captive portal answers 200 with its own page.
        raise DownloadError(f"{length} bytes offered, {size} expected", where=where, fix="look for a login page")
    return 0


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; raises OSError."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            hasher.update(chunk)
    return hasher.hexdigest()
