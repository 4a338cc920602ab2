# SPDX-License-Identifier: Apache-2.0
"""A part of an open file: one partition of an image or of a card. Nothing outside it can be read or written."""

import io
from dataclasses import dataclass
from typing import BinaryIO

from edge_contract.errors import ImageError

__all__ = ["Region", "size_of"]


def size_of(file: BinaryIO) -> int:
    """Return the length of an open file or block device in bytes.

    Example:
        >>> size_of(io.BytesIO(b"abc"))
        3
    """
    return file.seek(0, io.SEEK_END)


@dataclass(frozen=True)
class Region:
    """Bytes [start, start + length) of an open file.

    Attributes:
        file: Opened for reading, and for writing if anything is to be changed.
        start: First byte in the file.
        length: Number of bytes.
        name: What an error calls it.

    Example:
        >>> region = Region(io.BytesIO(b"0123456789"), 2, 4, "partition 1")
        >>> region.read(1, 2)
        b'34'
        >>> region.read(3, 2)
        Traceback (most recent call last):
        edge_contract.errors.ImageError: partition 1: bytes 3 to 5 lie outside its 4 bytes; the image is cut short or damaged: fetch it again
    """  # noqa: E501 - the error is one line

    file: BinaryIO
    start: int
    length: int
    name: str = "image"

    def read(self, at: int, count: int) -> bytes:
        """Return exactly ``count`` bytes.

        Raises:
            ImageError: They lie outside the region, or the file ends before.
        """
        self._check(at, count)
        self.file.seek(self.start + at)
        data = self.file.read(count)
        if len(data) != count:
            fix = "the image is cut short: fetch it again"
            raise ImageError(f"ends {count - len(data)} bytes early at {at + len(data)}", where=self.name, fix=fix)
        return data

    def write(self, at: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes inside the region.

        Raises:
            ImageError: They would lie outside.
        """
        self._check(at, len(data))
        self.file.seek(self.start + at)
        self.file.write(data)

    def _check(self, at: int, count: int) -> None:
        if at < 0 or count < 0 or at + count > self.length:
            what = f"bytes {at} to {at + count} lie outside its {self.length} bytes"
            fix = "the image is cut short or damaged: fetch it again"
            raise ImageError(what, where=self.name, fix=fix)
