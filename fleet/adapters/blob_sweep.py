# SPDX-License-Identifier: Apache-2.0
"""Delete files that no version needs any more, and never one that somebody is about to register."""

from collections.abc import Collection

from fleet.adapters.blobs import Blobs

__all__ = ["GRACE_S", "sweep"]

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
