# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a FAT file system: the questions that ``fsck.vfat`` asks, without changing anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.fat_entries import Directory, Entry
from fleet.flash.fat_names import fold
from fleet.flash.fat_reader import FatReader

__all__ = ["Fault", "examine"]

_MOST_DEPTH: Final = 32


@dataclass(frozen=True)
class Fault:
    """One finding.

    Attributes:
        words: What is wrong, and where.
        is_grave: Whether writing on such a volume could destroy something; else a writer puts it right or may leave it.
    """

    words: str
    is_grave: bool


class _Examination:
    """Walks every chain once, and remembers whose each cluster is."""

    def __init__(self, volume: FatReader) -> None:
        self.volume = volume
        self.used = bytearray(volume.layout.clusters + 2)
        self.faults: list[Fault] = []

    def grave(self, words: str) -> None:
        self.faults.append(Fault(words, is_grave=True))

    def mild(self, words: str) -> None:
        self.faults.append(Fault(words, is_grave=False))

    def claim(self, first: int, path: str) -> int:
        """Mark a chain as used; return its length, or -1 after a fault."""
        length = 0
        try:
            for cluster in self.volume.table.walk(first, f"/{path}"):
                if self.used[cluster]:
                    self.grave(f"/{path}: shares cluster {cluster} with another file")
                    return -1
                self.used[cluster] = 1
                length += 1
        except ImageError as error:
            self.grave(f"/{path}: {error.what}")
            return -1
        return length

    def file(self, entry: Entry, path: str) -> None:
        size, unit = entry.size, self.volume.layout.cluster_bytes
        length = self.claim(entry.cluster, path) if entry.cluster else 0
        if length >= 0 and length * unit < size:
            self.grave(f"/{path}: says {size} bytes and has {length} clusters of {unit}")
        elif length > -(-size // unit):
            self.mild(f"/{path}: has {length} clusters for {size} bytes")

    def directory(self, found: Directory, path: str, depth: int) -> None:
        names: set[str] = set()
        for entry in found.read():
            child = f"{path}/{entry.name}" if path else entry.name
            if fold(entry.name) in names:
                self.mild(f"/{child}: stands twice in its directory")
            names.add(fold(entry.name))
            if not entry.is_directory:
                self.file(entry, child)
            elif depth >= _MOST_DEPTH:
                self.grave(f"/{child}: lies too deep")
            elif self.claim(entry.cluster, child) >= 0:
                self.open(entry.cluster, child, depth + 1)

    def open(self, cluster: int, path: str, depth: int) -> None:
        try:
            found = self.volume.load_chain(cluster, f"/{path}")
        except ImageError as error:
            self.grave(f"/{path}: {error.what}")
            return
        if found.data[:2] != b". " or found.data[32:35] != b".. ":
            self.mild(f"/{path}: does not begin with '.' and '..'")
        self.directory(found, path, depth)


def _tables(volume: FatReader) -> Iterator[Fault]:
    if volume.layout.active < 0 and volume.layout.tables == 2:
        count = volume.layout.clusters + 2
        if volume.table.read_copy(0)[2:count] != volume.table.read_copy(1)[2:count]:
            yield Fault("its two allocation tables differ", is_grave=True)
    if volume.table.is_dirty():
        yield Fault("it was not put away properly (its dirty bit is set)", is_grave=False)
    if volume.layout.info_at and not volume.table.has_info():
        yield Fault("its FSInfo sector is none", is_grave=False)
    told, free = volume.table.told_free(), volume.table.count_free()
    if told is not None and told != free:
        yield Fault(f"FSInfo says {told} free clusters, there are {free}", is_grave=False)


def examine(volume: FatReader) -> tuple[Fault, ...]:
    """Return the faults of a volume, grave ones first; none for a clean one."""
    work = _Examination(volume)
    work.faults.extend(_tables(volume))
    try:
        if not volume.layout.root_cluster or work.claim(volume.layout.root_cluster, "") >= 0:
            work.directory(volume.root(), "", 0)
    except ImageError as error:
        work.grave(error.what)
    taken = volume.layout.clusters - volume.table.count_free() - volume.table.count_bad()
    lost = taken - work.used.count(1)
    if lost and not any(fault.is_grave for fault in work.faults):
        work.mild(f"{lost} clusters belong to no file")
    return tuple(sorted(work.faults, key=lambda fault: not fault.is_grave))
