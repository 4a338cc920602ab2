# SPDX-License-Identifier: Apache-2.0
"""What a disk may hold after the power fails, from a log of every write that reached it.

Format: dm-log-writes of the Linux kernel, as QEMU's ``blklogwrites`` writes it. Sector 0 is (magic, version, entries,
sector size); each entry is one sector (sector, sectors, flags, length), then its data.

A write is safe once a flush comes after it. At a cut, of those after the last flush any subset may be on the disk, and
the last one of that cut short at a sector's border: a disk promises no more. (SQLite and ext4 ask for no more.)
"""

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["Write", "apply", "last_flush", "read_log", "reordered"]

MAGIC, SECTOR = 0x6A736677736872, 512
FLUSH, FUA, DISCARD = 1, 2, 4
_HEAD = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Write:
    """One entry of the log; a flush has no data.

    Attributes:
        offset: Where on the disk, bytes.
        is_flush: All before it is on the disk for good.
    """

    offset: int
    data: bytes
    is_flush: bool = False


def read_log(path: Path) -> list[Write]:
    """Return the entries of a log up to where it ends; a discard reads as zeros afterwards.

    Raises:
        ValueError: No such log.
    """
    with path.open("rb") as file:
        magic, _, _, size = struct.unpack("<QQQI", file.read(28))
        if magic != MAGIC:
            raise ValueError(f"{path} is no log of writes")
        file.seek(size)
        return list(_entries(file, size))


def _entries(file: BinaryIO, size: int) -> Iterator[Write]:
    while len(head := file.read(size)) == size:
        sector, count, flags, _ = _HEAD.unpack_from(head)
        if not count and not flags:
            return  # a file that was made long enough beforehand
        if flags & DISCARD:
            yield Write(sector * size, bytes(count * size))
            continue
        data = file.read(count * size)
        if flags & FLUSH:
            yield Write(0, b"", is_flush=True)
        if data:
            yield Write(sector * size, data)
        if flags & FUA:
            yield Write(0, b"", is_flush=True)


def apply(disk: bytearray, writes: Sequence[Write]) -> None:
    """Write to a disk in memory; what lies behind its end is left out."""
    for write in writes:
        if write.offset < len(disk):
            disk[write.offset : write.offset + len(write.data)] = write.data[: len(disk) - write.offset]


def last_flush(writes: Sequence[Write], end: int) -> int:
    """Return how many of the first ``end`` entries are safe.

    Example:
        >>> last_flush([Write(0, b"a"), Write(0, b"", is_flush=True), Write(0, b"b")], 3)
        2
    """
    return next((i + 1 for i in range(end - 1, -1, -1) if writes[i].is_flush), 0)


def reordered(writes: Sequence[Write], rng: random.Random) -> list[Write]:
    """Draw what of unsafe writes is on the disk: a subset, with the last one perhaps cut short."""
    share = rng.choice((0.2, 0.5, 0.8))
    kept = [write for write in writes if rng.random() < share]
    if kept and len(kept[-1].data) > SECTOR and rng.random() < 0.3:
        last = kept[-1]
        kept[-1] = Write(last.offset, last.data[: SECTOR * rng.randrange(1, len(last.data) // SECTOR)])
    return kept
