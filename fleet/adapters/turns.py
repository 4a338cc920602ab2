# SPDX-License-Identifier: Apache-2.0
"""Turns among the processes of one machine: a lock file, held together by many or by one alone.

The kernel gives a lock back when its process ends, however it ends (flock(2)). ``fleet.adapters.postgres`` has the same
among machines.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_contract.errors import StoreError

__all__ = ["WAIT_S", "file_turn", "taken"]

WAIT_S: Final = 20.0
"""How long to wait for one's turn: uploads and sweeps are short, a backup may be long."""

_AGAIN_S: Final = 0.02


def taken(where: str) -> StoreError:
    """Return the error for who waited in vain."""
    fix = "try again when the upload, sweep or backup that runs now has ended"
    return StoreError("the files of bundles are in use by another process", where=where, fix=fix)


@contextlib.contextmanager
def file_turn(path: Path, *, shared: bool) -> Iterator[None]:
    """Hold a lock file.

    Args:
        path: Made if missing; its folder exists.
        shared: With others that share it; else alone.

    Raises:
        StoreError: Somebody holds it for longer than ``WAIT_S``, or the file cannot be opened.
    """
    deadline = time.monotonic() + WAIT_S
    try:
        file = path.open("a+")
    except OSError as error:
        raise StoreError(f"cannot be locked: {error}", where=str(path)) from error
    with file:
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise taken(str(path)) from None
                time.sleep(_AGAIN_S)
        yield
