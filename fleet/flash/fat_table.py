# SPDX-License-Identifier: Apache-2.0
"""The allocation table of a FAT volume: which cluster follows which. Held in memory, written back by sectors.

fatgen103, "FAT Data Structure" and "FAT32 FSInfo Sector Structure". A 32-bit entry has 28 bits; the upper four are
kept as they are.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.fat_layout import Layout
from fleet.flash.region import Region

__all__ = ["FREE", "Table"]

FREE: Final = 0
_MASK32: Final = 0x0FFFFFFF
_LEAD: Final = 0x41615252
_STRUCTURE: Final = 0x61417272
_UNKNOWN: Final = 0xFFFFFFFF
_FIX: Final = "the file system is damaged: fetch the image again, or repair it with fsck.vfat"


class Table:
    """Entries of one volume.

    Attributes:
        layout: The volume's geometry.
    """

    def __init__(self, region: Region, layout: Layout) -> None:
        self.layout = layout
        self._region = region
        self._wide = layout.bits == 32
        self._mask = _MASK32 if self._wide else 0xFFFF
        self.end = 0x0FFFFFF8 if self._wide else 0xFFF8
        self._bad = self.end - 1
        self._dirty: set[int] = set()
        self.reload()

    def reload(self) -> None:
        """Read the table in force again, and forget what was not written."""
        self._entries = self.read_copy(max(self.layout.active, 0))
        self._dirty.clear()
        self._hint = 2
        self._free = -1

    def read_copy(self, number: int) -> "array[int]":
        """Return one copy of the table, one number for each entry."""
        size, at = self.layout.table_bytes, self.layout.table_at
        entries: array[int] = array("I" if self._wide else "H")
        entries.frombytes(self._region.read(at + number * size, size))
        if sys.byteorder == "big":
            entries.byteswap()
        return entries

    def __getitem__(self, cluster: int) -> int:
        return self._entries[cluster] & self._mask

    def is_data(self, cluster: int) -> bool:
        """Return whether there is a data cluster of this number."""
        return 2 <= cluster < self.layout.clusters + 2

    def set(self, cluster: int, value: int) -> None:
        """Change an entry in memory; ``flush`` writes it."""
        was = self._entries[cluster]
        self._entries[cluster] = (was & ~self._mask) | value
        if self._free >= 0 and cluster >= 2:
            self._free += (value == FREE) - (was & self._mask == FREE)
        width = 4 if self._wide else 2
        self._dirty.add(cluster * width // self.layout.sector_bytes)

    def chain(self, first: int, where: str) -> list[int]:
        """Return the clusters of a file, in order; none for 0.

        Raises:
            ImageError: The chain leaves the volume, runs into a free or bad cluster, or never ends.
        """
        return list(self.walk(first, where)) if first else []

    def walk(self, first: int, where: str) -> Iterator[int]:
        """Yield the clusters of a chain one by one, with the errors of ``chain``."""
        cluster, steps = first, 0
        while True:
            if not self.is_data(cluster):
                word = {FREE: "a free cluster", self._bad: "a bad cluster"}.get(cluster, f"cluster {cluster}")
                what = f"its chain runs into {word} after {steps} of {self.layout.clusters} clusters"
                raise ImageError(what, where=where, fix=_FIX)
            yield cluster
            steps += 1
            if steps > self.layout.clusters:
                raise ImageError("its chain of clusters never ends", where=where, fix=_FIX)
            cluster = self[cluster]
            if cluster >= self.end:
                return

    def count_free(self) -> int:
        """Return how many data clusters are free."""
        if self._free < 0:
            part = self._entries[2 : self.layout.clusters + 2]
            self._free = part.count(FREE)
            if self._wide and max(part) > self._mask:  # free, but with something in the four bits that are kept
                self._free += sum(1 for entry in part if entry and not entry & self._mask)
        return self._free

    def count_bad(self) -> int:
        """Return how many data clusters are marked as bad."""
        return self._entries[2 : self.layout.clusters + 2].count(self._bad)

    def take(self, count: int) -> list[int]:
        """Take free clusters in memory and chain them; there must be so many.

        They are taken from the first free one after the last that was taken, so that a file lies in one piece
        where it can.
        """
        taken: list[int] = []
        stop = self.layout.clusters + 2
        cluster = self._hint
        for _ in range(self.layout.clusters):
            if len(taken) == count:
                break
            if self[cluster] == FREE:
                taken.append(cluster)
            cluster = cluster + 1 if cluster + 1 < stop else 2
        self._hint = cluster
        for here, after in zip(taken, [*taken[1:], self.end | 7], strict=False):
            self.set(here, after)
        return taken

    def extend(self, last: int, more: list[int]) -> None:
        """Append clusters that ``take`` gave to a chain that ends at ``last``."""
        self.set(last, more[0])

    def release(self, chain: list[int]) -> None:
        """Free the clusters of a chain in memory."""
        for cluster in chain:
            self.set(cluster, FREE)

    def flush(self) -> None:
        """Write changed sectors of the table into every copy that is in force."""
        layout = self.layout
        per = layout.sector_bytes // self._entries.itemsize
        for copy in self._copies():
            for sector in sorted(self._dirty):
                part = self._entries[sector * per : (sector + 1) * per]
                if sys.byteorder == "big":
                    part.byteswap()
                at = layout.table_at + copy * layout.table_bytes + sector * layout.sector_bytes
                self._region.write(at, part.tobytes())
        self._dirty.clear()

    def is_dirty(self) -> bool:
        """Return whether the volume was not put away properly, by either of the two notes of it."""
        bit = 0x08000000 if self._wide else 0x8000
        return not self[1] & bit or bool(self._region.read(self.layout.state_at, 1)[0] & 1)

    def mark(self, *, dirty: bool) -> None:
        """Note in both places whether a change is under way; nothing else of the table is written."""
        layout, width = self.layout, self._entries.itemsize
        bit = 0x08000000 if self._wide else 0x8000
        self._entries[1] = self._entries[1] & ~bit if dirty else self._entries[1] | bit
        raw = self._entries[1].to_bytes(width, "little")
        for copy in self._copies():
            self._region.write(layout.table_at + copy * layout.table_bytes + width, raw)
        state = self._region.read(layout.state_at, 1)[0]
        self._region.write(layout.state_at, bytes([state | 1 if dirty else state & ~1]))

    def _copies(self) -> list[int]:
        return list(range(self.layout.tables)) if self.layout.active < 0 else [self.layout.active]

    def has_info(self) -> bool:
        """Return whether the volume has an FSInfo sector with the marks of one."""
        if not self.layout.info_at:
            return False
        lead, structure = struct.unpack_from("<I480xI", self._region.read(self.layout.info_at, 512))
        return (lead, structure) == (_LEAD, _STRUCTURE)

    def told_free(self) -> int | None:
        """Return the free count of the FSInfo sector; None where there is none, or where it says unknown."""
        if not self.has_info():
            return None
        free: int = struct.unpack("<I", self._region.read(self.layout.info_at + 488, 4))[0]
        return None if free == _UNKNOWN else free

    def tell_free(self) -> None:
        """Write the free count and the place to look for free clusters into the FSInfo sector."""
        if self.has_info():
            self._region.write(self.layout.info_at + 488, struct.pack("<II", self.count_free(), self._hint))
