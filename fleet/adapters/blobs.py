# SPDX-License-Identifier: Apache-2.0
"""Content-addressed files on disk: ``blobs/ab/abcd…``; a blob is there whole or not at all."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from edge_contract import durable
from edge_contract.errors import StoreError

__all__ = ["MAX_BLOB_BYTES", "BlobStore"]

MAX_BLOB_BYTES = 2_000_000_000
_HEX = frozenset("0123456789abcdef")


def _check_name(sha256: str) -> None:
    if len(sha256) != 64 or not set(sha256) <= _HEX:
        raise StoreError(f"{sha256[:70]!r} is not a SHA-256", fix="use 64 lower-case hexadecimal digits")


class BlobStore:
    """Blobs below one folder.

    Args:
        folder: Made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.part"):  # uploads that a crash cut short
            left.unlink()

    def path(self, sha256: str) -> Path | None:
        """Return the file of a blob, None if it is not held."""
        _check_name(sha256)
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

    def put(self, sha256: str, chunks: Iterable[bytes]) -> int:
        """Store a blob and return its size in bytes; a wrong digest leaves nothing behind.

        Raises:
            StoreError: The bytes have another digest, are too many, or the disk refuses.
        """
        _check_name(sha256)
        part = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            size, digest = _write(part, chunks)
            if digest != sha256:
                raise StoreError(f"the bytes have digest {digest[:12]}", where=f"blob {sha256[:12]}", fix="send again")
            target = self._folder / sha256[:2] / sha256
            target.parent.mkdir(exist_ok=True)
            part.replace(target)
            durable.sync_folder(target.parent)
            return size
        except OSError as error:
            raise StoreError(f"the disk refused: {error.strerror}", where=f"blob {sha256[:12]}") from error
        finally:
            part.unlink(missing_ok=True)


def _write(part: Path, chunks: Iterable[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with part.open("xb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_BLOB_BYTES:
                raise StoreError(f"more than {MAX_BLOB_BYTES} bytes", where="blob")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()
