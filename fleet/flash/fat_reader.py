# SPDX-License-Identifier: Apache-2.0
"""Reading a FAT volume: directories, files, and the runs of bytes in which they lie."""

from collections.abc import Iterator
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.fat_entries import MOST_BYTES, Directory, Entry
from fleet.flash.fat_layout import Layout, read_layout
from fleet.flash.fat_names import fold
from fleet.flash.fat_table import Table
from fleet.flash.region import Region

__all__ = ["FatReader", "parts_of"]

_PIECE: Final = 1 << 20
_MOST_DEPTH: Final = 32
_FIX: Final = "the file system is damaged: fetch the image again"


def parts_of(path: str) -> tuple[str, ...]:
    """Return the names on the way to a file; none for the root.

    Example:
        >>> parts_of("/overlays/README"), parts_of("")
        (('overlays', 'README'), ())
    """
    return tuple(part for part in path.split("/") if part)


class FatReader:
    """A FAT16 or FAT32 file system in a region, to be read.

    Attributes:
        region: The partition.
        layout: Its geometry.
        table: Its allocation table.

    Raises:
        ImageError: The region holds no FAT16 or FAT32 file system, or its numbers contradict each other.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.layout: Layout = read_layout(region)
        self.table = Table(region, self.layout)
        self.loaded: dict[tuple[str, ...], Directory] = {}

    def free_bytes(self) -> int:
        """Return how many bytes are free, in whole clusters."""
        return self.table.count_free() * self.layout.cluster_bytes

    def entries(self, path: str = "") -> list[Entry]:
        """Return the entries of a directory, in its order.

        Raises:
            ImageError: There is no such directory, or it is damaged.
        """
        return sorted(self.directory(parts_of(path)).entries.values(), key=lambda entry: entry.slot)

    def find(self, path: str) -> Entry | None:
        """Return the entry of a file or directory, whatever the case of its name; None if there is none."""
        *parents, name = parts_of(path)
        for depth, parent in enumerate(parents):
            entry = self.directory(tuple(parents[:depth])).find(parent)
            if entry is None or not entry.is_directory:
                return None
        return self.directory(tuple(parents)).find(name)

    def read(self, path: str, *, most: int = 64 << 20) -> bytes:
        """Return a file's bytes.

        Raises:
            ImageError: There is no such file, it is longer than ``most``, or its chain is damaged.
        """
        entry = self.file(path)
        if entry.size > most:
            raise ImageError(f"has {entry.size} bytes, at most {most} are read", where=self.where(path))
        return b"".join(self.pieces(path))

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes, piece by piece, so that a large one needs no memory."""
        entry = self.file(path)
        chain = self.table.chain(entry.cluster, self.where(path))
        if len(chain) * self.layout.cluster_bytes < entry.size:
            what = f"has {entry.size} bytes in {len(chain)} clusters of {self.layout.cluster_bytes}"
            raise ImageError(what, where=self.where(path), fix=_FIX)
        left = entry.size
        for at, length in self.runs(chain):
            used = min(length, left)
            for start in range(0, used, _PIECE):
                yield self.region.read(at + start, min(_PIECE, used - start))
            left -= used

    def walk(self, path: str = "", seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, Entry]]:
        """Yield every file and directory below a directory, with its path."""
        for entry in self.entries(path):
            name = f"{path}/{entry.name}" if path else entry.name
            yield name, entry
            if entry.is_directory:
                if entry.cluster in seen or len(seen) >= _MOST_DEPTH:
                    raise ImageError(
                        "directories contain each other, or lie too deep", where=self.where(name), fix=_FIX
                    )
                yield from self.walk(name, seen | {entry.cluster})

    def file(self, path: str) -> Entry:
        """Return the entry of a file.

        Raises:
            ImageError: There is none, or it is a directory.
        """
        entry = self.find(path)
        if entry is None or entry.is_directory:
            raise ImageError("no such file", where=self.where(path))
        return entry

    def where(self, path: str) -> str:
        """Return what an error calls a path."""
        return f"{self.region.name}:/{path.strip('/')}"

    def runs(self, chain: list[int]) -> Iterator[tuple[int, int]]:
        """Yield the byte runs (offset, length) of a chain; neighbouring clusters are one run."""
        size, start = self.layout.cluster_bytes, 0
        for place in range(1, len(chain) + 1):
            if place == len(chain) or chain[place] != chain[place - 1] + 1:
                yield self.layout.offset_of(chain[start]), (place - start) * size
                start = place

    def directory(self, parts: tuple[str, ...]) -> Directory:
        """Return a directory; the same one for the same names until ``forget``.

        Raises:
            ImageError: There is none, or it is damaged.
        """
        key = tuple(fold(part) for part in parts)
        if key not in self.loaded:
            self.loaded[key] = self._load(parts)
        return self.loaded[key]

    def forget(self) -> None:
        """Drop what was read or planned and not written."""
        self.loaded.clear()
        self.table.reload()

    def load_chain(self, cluster: int, where: str) -> Directory:
        """Return the directory that begins at a cluster."""
        chain = []
        for number in self.table.walk(cluster, where):
            chain.append(number)
            if len(chain) * self.layout.cluster_bytes > MOST_BYTES + self.layout.cluster_bytes:
                raise ImageError("a directory of more than 2 MB", where=where, fix=_FIX)
        data = bytearray(b"".join(self.region.read(at, length) for at, length in self.runs(chain)))
        return Directory(data, chain, wide=self.layout.bits == 32, where=where)

    def root(self) -> Directory:
        """Return the root directory as the disk has it."""
        if self.layout.root_cluster:
            return self.load_chain(self.layout.root_cluster, self.where(""))
        data = bytearray(self.region.read(self.layout.root_at, self.layout.root_entries * 32))
        return Directory(data, [], wide=False, where=self.where(""))

    def _load(self, parts: tuple[str, ...]) -> Directory:
        if not parts:
            return self.root()
        where = self.where("/".join(parts))
        entry = self.directory(parts[:-1]).find(parts[-1])
        if entry is None or not entry.is_directory:
            raise ImageError("no such directory", where=where)
        return self.load_chain(entry.cluster, where)
