# SPDX-License-Identifier: Apache-2.0
"""Delete files that no version needs any more, and never one that somebody is about to register."""

import contextlib
import threading
from collections.abc import Collection, Iterator

from fleet.adapters.blobs import Blobs
from fleet.adapters.store import Store

__all__ = ["GRACE_S", "FileTurns", "sweep"]

GRACE_S = 86_400.0
"""A file that was sent, or named by the check before an upload, within a day stays even if no version needs it yet."""


def sweep(blobs: Blobs, needed: Collection[str], *, before: float) -> dict[str, int]:
    """Delete what is not needed and was last touched before a time; return how many files and bytes went.

    Args:
        blobs: Where files are.
        needed: SHA-256 of what stays.
        before: Seconds since 1970.
    """
    gone = [0, 0]
    for sha256, size, touched in blobs.held():
        if sha256 not in needed and touched < before and blobs.delete(sha256):
            gone = [gone[0] + 1, gone[1] + size]
    return {"files": gone[0], "bytes": gone[1]}


class FileTurns:
    """Turns at the files of bundles: within this process, and among all that work on the same database.

    A server that lost its leadership while it was busy, a backup, another server on the same object store: none of
    them may see a file go between the look at it and the row that needs it.

    Args:
        store: Whose processes take turns.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Look at files and write down who needs them; others may do so, too, and nobody sweeps.

        Raises:
            StoreError: A sweep holds them for too long.
        """
        with self._lock, self._store.turn(shared=True):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Sweep: nobody else looks at files or copies them.

        Raises:
            StoreError: An upload or a backup holds them for too long.
        """
        with self._lock, self._store.turn(shared=False):
            yield
