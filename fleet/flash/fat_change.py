# SPDX-License-Identifier: Apache-2.0
"""One change of a FAT volume: planned in memory, then written in an order that survives an interruption.

::

    mark the volume as in use → new data and new directories → table → entries → free what was replaced → mark it clean

If files fit only into the clusters of what they replace, those are taken at once; then an interruption may cost the
replaced file.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_contract.errors import ImageError, UsageError
from fleet.flash.fat_entries import ARCHIVE, DIRECTORY, MOST_BYTES, Directory, Entry, new_directory
from fleet.flash.fat_names import check_name, fold
from fleet.flash.fat_reader import FatReader, parts_of

__all__ = ["Change", "Source", "check_paths", "size_of_source"]

_PIECE: Final = 1 << 20
_MOST_FILE: Final = (1 << 32) - 1
Source = bytes | Path


def check_paths(paths: Mapping[str, Source]) -> None:
    """Refuse names that a volume cannot hold, and the same one twice.

    Raises:
        UsageError: Such a name; nothing was written.
    """
    seen: set[tuple[str, ...]] = set()
    for path in paths:
        parts = parts_of(path)
        for part in parts:
            check_name(part)
        folded = tuple(fold(part) for part in parts)
        if not parts or folded in seen:
            raise UsageError("the same name twice, but for the case of its letters, or none", where=path)
        seen.add(folded)


def size_of_source(source: Source, path: str) -> int:
    """Return the bytes of what is to be written.

    Raises:
        UsageError: The file cannot be read, or is longer than a file on a FAT volume may be.
    """
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(source)) from error
    if size > _MOST_FILE:
        raise UsageError(f"has {size} bytes, a file on a FAT volume has at most {_MOST_FILE}", where=path)
    return size


@dataclass
class Change:
    """What a change will write.

    Attributes:
        volume: What is changed; its table and directories hold the plan until it is written or forgotten.
        when: The time that files get.
        available: Clusters that the plan may take.
        wanted: Clusters that it needs; more than available means that it does not fit.
        files: Chain, size and source of each file.
        released: Chains of what is replaced.
        new: Directories that were not there.
    """

    volume: FatReader
    when: dt.datetime
    available: int = 0
    wanted: int = 0
    files: list[tuple[list[int], int, Source]] = field(default_factory=list)
    released: list[list[int]] = field(default_factory=list)
    new: list[Directory] = field(default_factory=list)

    def plan(self, files: Mapping[str, Source], *, reclaim: bool) -> None:
        """Plan files; ``reclaim`` frees what they replace before, and not after.

        Raises:
            ImageError: A directory or a file is in the way, or FAT16's root directory is full.
        """
        for path in files:
            entry = self.volume.find(path)
            if entry is not None and not entry.is_directory and entry.cluster:
                self.released.append(self.volume.table.chain(entry.cluster, self.volume.where(path)))
        if reclaim:
            for chain in self.released:
                self.volume.table.release(chain)
            self.released = []
        self.available = self.volume.table.count_free()
        for path, source in files.items():
            self._file(path, source, size_of_source(source, path))

    @property
    def missing_bytes(self) -> int:
        """How much more room is needed; 0 if it fits."""
        return max(0, self.wanted - self.available) * self.volume.layout.cluster_bytes

    def _take(self, count: int) -> list[int]:
        self.wanted += count
        return self.volume.table.take(count) if self.wanted <= self.available else []

    def _clusters(self, size: int) -> int:
        return -(-size // self.volume.layout.cluster_bytes)

    def _file(self, path: str, source: Source, size: int) -> None:
        *parents, name = parts_of(path)
        home = self._home(tuple(parents))
        entry = home.find(name)
        if entry is not None and entry.is_directory:
            raise ImageError("is a directory, and a file is to be written", where=self.volume.where(path))
        chain = self._take(self._clusters(size))
        entry = entry or self._entry(home, name, ARCHIVE)
        if entry is not None:
            home.point(entry, chain[0] if chain else 0, size, self.when)
        self.files.append((chain, size, source))

    def _entry(self, home: Directory, name: str, attributes: int) -> Entry | None:
        """Return a new entry; None if there is no cluster for it."""
        missing = home.room(name)
        if missing and self.wanted > self.available:
            return None
        if missing and not home.chain:
            what = f"the root directory is full: '{name}' needs {missing} more bytes of it"
            raise ImageError(what, where=self.volume.region.name, fix="use an image whose boot partition is FAT32")
        if missing:
            more = self._take(self._clusters(missing))
            if not more:
                return None
            if len(home.data) + len(more) * self.volume.layout.cluster_bytes > MOST_BYTES:
                raise ImageError("the directory is full", where=home.where, fix="use fewer files there")
            self.volume.table.set(home.chain[-1], more[0])
            home.grow(more, self.volume.layout.cluster_bytes)
        return home.add(name, attributes, self.when)

    def _home(self, parts: tuple[str, ...]) -> Directory:
        """Return a directory, made in memory if it is not there."""
        if not parts:
            return self.volume.directory(())
        parent = self._home(parts[:-1])
        entry = parent.find(parts[-1])
        key = tuple(fold(part) for part in parts)
        if entry is not None and not entry.is_directory:
            raise ImageError("is a file, and a directory is needed", where=self.volume.where("/".join(parts)))
        if entry is not None or key in self.volume.loaded:
            return self.volume.directory(parts)
        return self._new_home(parts, key, parent)

    def _new_home(self, parts: tuple[str, ...], key: tuple[str, ...], parent: Directory) -> Directory:
        chain = self._take(1)
        entry = self._entry(parent, parts[-1], DIRECTORY)
        if entry is not None and chain:
            parent.point(entry, chain[0], 0, self.when)
        up = parent.chain[0] if parent.chain and len(parts) > 1 else 0
        data = new_directory(self.volume.layout.cluster_bytes, chain[0] if chain else 0, up, self.when)
        made = Directory(data, chain, wide=self.volume.layout.bits == 32, where=self.volume.where("/".join(parts)))
        self.volume.loaded[key] = made
        self.new.append(made)
        return made

    def commit(self) -> None:
        """Write the plan, and forget it."""
        volume = self.volume
        volume.table.mark(dirty=True)
        for chain, size, source in self.files:
            self._write(chain, size, source)
        for directory in volume.loaded.values():
            self._write_fresh(directory)
        volume.table.flush()
        for directory in volume.loaded.values():
            self._write_changed(directory)
        for chain in self.released:
            volume.table.release(chain)
        volume.table.flush()
        volume.table.tell_free()
        volume.table.mark(dirty=False)
        volume.region.file.flush()
        volume.loaded.clear()

    def _write(self, chain: list[int], size: int, source: Source) -> None:
        if isinstance(source, bytes):
            self._pour(chain, size, iter([source]))
            return
        with source.open("rb") as file:
            self._pour(chain, size, iter(lambda: file.read(_PIECE), b""), str(source))

    def _pour(self, chain: list[int], size: int, pieces: Iterator[bytes], name: str = "") -> None:
        """Write pieces into a chain; the rest of its last cluster becomes zeros."""
        rest, left = b"", size
        for at, length in self.volume.runs(chain):
            done = 0
            while done < length and left:
                rest = rest or next(pieces, b"")
                if not rest:
                    raise ImageError("became shorter while it was written", where=name, fix="begin again")
                part = rest[: min(length - done, left)]
                self.volume.region.write(at + done, part)
                rest, done, left = rest[len(part) :], done + len(part), left - len(part)
            self.volume.region.write(at + done, bytes(length - done))

    def _write_fresh(self, directory: Directory) -> None:
        """Write whole clusters that belong to a directory since now."""
        unit = self.volume.layout.cluster_bytes
        places = range(len(directory.chain)) if any(directory is new for new in self.new) else directory.fresh
        for place in places:
            at = self.volume.layout.offset_of(directory.chain[place])
            self.volume.region.write(at, directory.data[place * unit : (place + 1) * unit])

    def _write_changed(self, directory: Directory) -> None:
        """Write the sectors of a directory's changed slots."""
        layout = self.volume.layout
        for sector in sorted({slot * 32 // layout.sector_bytes for slot in directory.changed}):
            start = sector * layout.sector_bytes
            self.volume.region.write(self._place(directory, start), directory.data[start : start + layout.sector_bytes])

    def _place(self, directory: Directory, start: int) -> int:
        layout = self.volume.layout
        if not directory.chain:
            return layout.root_at + start
        return layout.offset_of(directory.chain[start // layout.cluster_bytes]) + start % layout.cluster_bytes
