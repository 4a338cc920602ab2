# SPDX-License-Identifier: Apache-2.0
"""A card as bytes at places: opened so that nobody else has it, written through to the flash, read past the cache."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from edge_contract.errors import ImageError, UsageError

__all__ = ["BlockDevice", "Medium"]

_BLKFLSBUF: Final = 0x1261
"""``linux/fs.h``: forget what is cached of a block device."""
_BLKRRPART: Final = 0x125F
"""``linux/fs.h``: read the partition table again."""
_GONE: Final = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ENOSPC)


class Medium(Protocol):
    """What a card is written through."""

    def read(self, at: int, count: int) -> bytes:
        """Return exactly so many bytes."""

    def write(self, at: int, data: bytes) -> None:
        """Write all of it."""

    def sync(self) -> None:
        """Return when all that was written lies on the card."""

    def forget(self) -> None:
        """Let what is read next come from the card."""


class BlockDevice:
    """A block device, held exclusively: the kernel refuses it while one of its partitions is mounted.

    Raises:
        UsageError: It may not be opened by this user, is in use, or is no block device.
        ImageError: Raised by every operation once the card is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"cannot be opened: {error.strerror}", where=str(path), fix=_fix(error)) from error
        if not stat.S_ISBLK(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise UsageError("is no block device", where=str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)

    def read(self, at: int, count: int) -> bytes:
        """Return exactly so many bytes."""
        parts, missing = list[bytes](), count
        while missing:
            try:
                data = os.pread(self._fd, missing, at + count - missing)
            except OSError as error:
                raise self._gone("read", at + count - missing, error) from error
            if not data:
                raise ImageError(
                    f"ends at byte {at + count - missing:,}", where=str(self.path), fix="take another card"
                )
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def write(self, at: int, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            try:
                done = os.pwrite(self._fd, view, at)
            except OSError as error:
                raise self._gone("written", at, error) from error
            view, at = view[done:], at + done

    def sync(self) -> None:
        """Return when all that was written lies on the card."""
        try:
            os.fsync(self._fd)
        except OSError as error:  # of any write before: the kernel tells it once
            raise self._gone("written", -1, error) from error

    def forget(self) -> None:
        """Let what is read next come from the card."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            fcntl.ioctl(self._fd, _BLKFLSBUF, 0)
        except PermissionError:
            return  # without root the advice alone has to do

    def reread_partitions(self) -> None:
        """Tell the kernel of the new partition table; one that will not hear of it now does at the next plugging in."""
        try:
            fcntl.ioctl(self._fd, _BLKRRPART, 0)
        except OSError:
            return

    def _gone(self, what: str, at: int, error: OSError) -> ImageError:
        place = f"at byte {at:,} " if at >= 0 else ""
        if error.errno not in _GONE:
            return ImageError(f"cannot be {what} {place}: {error.strerror}", where=str(self.path))
        fix = "put it in again and repeat with --resume; another reader or card, if it happens again"
        return ImageError(f"the card could not be {what} {place}({error.strerror})", where=str(self.path), fix=fix)


def _fix(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "run it with sudo, or add yourself to the group that owns the device (disk)"
    return "close what uses it" if error.errno == errno.EBUSY else "put the card in, and see strop flash card --list"
