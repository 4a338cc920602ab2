# SPDX-License-Identifier: Apache-2.0
"""Content-addressed files on disk: ``blobs/ab/abcd…``; a blob is there whole or not at all.

``Blobs`` is what the server asks of a store of files; ``fleet.adapters.s3_blobs`` is the other one.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from edge_contract import durable
from edge_contract.errors import StoreError

__all__ = ["CHUNK", "MAX_BLOB_BYTES", "BlobStore", "Blobs", "DiskFullError", "check_name"]

MAX_BLOB_BYTES = 2_000_000_000
RESERVE_BYTES: Final = 64_000_000
"""An upload never takes the last bytes of a disk: the database beside it needs them."""
CHUNK: Final = 1 << 20
_LOOK_EVERY: Final = 8 * CHUNK
_HEX = frozenset("0123456789abcdef")


class DiskFullError(StoreError):
    """No room for a file; nothing of it was kept."""


def check_name(sha256: str) -> None:
    """Raise StoreError for what is not 64 lower-case hexadecimal digits: names become paths and keys."""
    if len(sha256) != 64 or not set(sha256) <= _HEX:
        raise StoreError(f"{sha256[:70]!r} is not a SHA-256", fix="use 64 lower-case hexadecimal digits")


class Blobs(Protocol):
    """A store of content-addressed files. Safe to use from any thread."""

    def path(self, sha256: str) -> Path | None:
        """Return a blob's file on this machine, None if it is not held or lies elsewhere."""
        ...

    def size(self, sha256: str) -> int | None:
        """Return a blob's size in bytes, None if it is not held."""
        ...

    def read(self, sha256: str) -> bytes:
        """Return a blob's bytes; raises StoreError if it is not held."""
        ...

    def part(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to but not including ``end``; raises StoreError if it is not held."""
        ...

    def local(self, sha256: str) -> AbstractContextManager[Path | None]:
        """Give a file with a blob's bytes for as long as it is needed, None if the blob is not held."""
        ...

    def put(self, sha256: str, chunks: Iterable[bytes]) -> int:
        """Store a blob and return its size in bytes; a wrong digest leaves nothing behind."""
        ...

    def touch(self, sha256: str) -> bool:
        """Let a blob count as sent just now; False if it is not held."""
        ...

    def delete(self, sha256: str) -> bool:
        """Delete a blob; False if it was not held."""
        ...

    def held(self) -> Iterator[tuple[str, int, float]]:
        """Yield every blob: SHA-256, size in bytes, when it was sent or touched in seconds since 1970."""
        ...


class BlobStore:
    """Blobs below one folder; the methods are those of ``Blobs``.

    Args:
        folder: Made if missing.
        reserve: Bytes of the disk that an upload leaves free.
    """

    def __init__(self, folder: Path, *, reserve: int = RESERVE_BYTES) -> None:
        self._folder, self._reserve = folder, reserve
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.part"):  # uploads that a crash cut short
            left.unlink()

    def path(self, sha256: str) -> Path | None:
        """Return the file of a blob, None if it is not held."""
        check_name(sha256)
        path = self._folder / sha256[:2] / sha256
        return path if path.is_file() else None

    def size(self, sha256: str) -> int | None:
        """Return a blob's size in bytes, None if it is not held."""
        path = self.path(sha256)
        return path.stat().st_size if path else None

    def read(self, sha256: str) -> bytes:
        """Return a blob's bytes; raises StoreError if it is not held."""
        path = self.path(sha256)
        if path is None:
            raise StoreError("not held", where=f"blob {sha256[:12]}")
        return path.read_bytes()

    def part(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to but not including ``end``; raises StoreError if it is not held."""
        path = self.path(sha256)
        if path is None:
            raise StoreError("not held", where=f"blob {sha256[:12]}")
        with path.open("rb") as file:
            file.seek(start)
            while start < end and (chunk := file.read(min(CHUNK, end - start))):
                start += len(chunk)
                yield chunk

    @contextlib.contextmanager
    def local(self, sha256: str) -> Iterator[Path | None]:
        """Give the blob's own file."""
        yield self.path(sha256)

    def touch(self, sha256: str) -> bool:
        """Let a blob count as sent just now; False if it is not held."""
        path = self.path(sha256)
        if path is not None:
            os.utime(path)
        return path is not None

    def delete(self, sha256: str) -> bool:
        """Delete a blob; False if it was not held."""
        path = self.path(sha256)
        if path is not None:
            path.unlink(missing_ok=True)
        return path is not None

    def held(self) -> Iterator[tuple[str, int, float]]:
        """Yield every blob: SHA-256, size in bytes, when it was sent or touched in seconds since 1970."""
        for path in sorted(self._folder.glob("??/" + "?" * 64)):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                yield path.name, facts.st_size, facts.st_mtime

    def put(self, sha256: str, chunks: Iterable[bytes]) -> int:
        """Store a blob and return its size in bytes; a wrong digest leaves nothing behind.

        Raises:
            DiskFullError: The disk has no room, or would have less left than the reserve.
            StoreError: The bytes have another digest, are too many, or the disk refuses.
        """
        check_name(sha256)
        part = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            size, digest = self._write(part, chunks)
            if digest != sha256:
                raise StoreError(f"the bytes have digest {digest[:12]}", where=f"blob {sha256[:12]}", fix="send again")
            target = self._folder / sha256[:2] / sha256
            target.parent.mkdir(exist_ok=True)
            part.replace(target)
            durable.sync_folder(target.parent)
            return size
        except OSError as error:
            raise _refusal(error, sha256) from error
        finally:
            part.unlink(missing_ok=True)

    def _write(self, part: Path, chunks: Iterable[bytes]) -> tuple[int, str]:
        size, digest, look_at = 0, hashlib.sha256(), 0
        with part.open("xb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > MAX_BLOB_BYTES:
                    raise StoreError(f"more than {MAX_BLOB_BYTES} bytes", where="blob")
                if size >= look_at:
                    self._check_room(len(chunk))
                    look_at = size + _LOOK_EVERY
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return size, digest.hexdigest()

    def _check_room(self, coming: int) -> None:
        if self._reserve and shutil.disk_usage(self._folder).free - coming < self._reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _refusal(error: OSError, sha256: str) -> StoreError:
    where = f"blob {sha256[:12]}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        fix = "free space on the server, such as with 'strop fleet model sweep'; nothing of the file was kept"
        return DiskFullError("the server's disk is full", where=where, fix=fix)
    return StoreError(f"the disk refused: {error.strerror}", where=where)
