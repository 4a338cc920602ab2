# SPDX-License-Identifier: Apache-2.0
"""Entries of a FAT directory: read from its bytes, and put into them.

fatgen103, "FAT Directory Structure". An entry has 32 bytes; a long name stands in front of its short entry in pieces
that carry the checksum of the short name. Pieces that belong to nothing are left alone.
"""

import datetime as dt
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from fleet.flash.fat_layout import ENTRY_BYTES
from fleet.flash.fat_names import LONG, checksum, fold, long_entries, long_piece, needs_long, short_name, short_text

__all__ = ["ARCHIVE", "DIRECTORY", "MOST_BYTES", "Directory", "Entry", "new_directory", "stamp"]

DIRECTORY: Final = 0x10
ARCHIVE: Final = 0x20
_LABEL: Final = 0x08
_DELETED: Final = 0xE5
_SHORT_FORM: Final = "<11sBBBHHHHHHHI"
MOST_BYTES: Final = 65536 * ENTRY_BYTES
"""A directory has at most so many bytes, by fatgen103."""


def stamp(when: dt.datetime) -> tuple[int, int]:
    """Return a time as FAT's date and time words; FAT knows 1980 to 2107, in steps of two seconds.

    Example:
        >>> stamp(dt.datetime(2026, 11, 21, 12, 30, 9))
        (23925, 25540)
    """
    year = min(max(when.year, 1980), 2107)
    return (year - 1980) << 9 | when.month << 5 | when.day, when.hour << 11 | when.minute << 5 | when.second // 2


@dataclass(frozen=True)
class Entry:
    """One file or directory.

    Attributes:
        name: Its long name, or the short one if it has no other.
        short: The 11 bytes of its short name.
        attributes: 0x10 directory, 0x20 archive, 0x01 read only, 0x02 hidden, 0x04 system.
        cluster: Its first cluster; 0 if it is empty.
        size: Bytes of a file; 0 for a directory.
        slot: Number of its short entry in the directory.
        pieces: How many long entries stand before it.
    """

    name: str
    short: bytes
    attributes: int
    cluster: int
    size: int
    slot: int
    pieces: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return bool(self.attributes & DIRECTORY)


def _long_name(pieces: list[tuple[int, int, bytes]], short: bytes) -> str:
    """Return the name that pieces give, in the order of the disk; empty if they do not belong to the short name."""
    count = len(pieces)
    orders = [order for order, _, _ in pieces]
    if orders != [count | 0x40, *range(count - 1, 0, -1)] or {total for _, total, _ in pieces} != {checksum(short)}:
        return ""
    units = b"".join(part for _, _, part in reversed(pieces))
    text = units.decode("utf-16-le", "replace")
    return text.split("\0", 1)[0].rstrip("\uffff")


class Directory:
    """The bytes of one directory, changed in memory.

    Attributes:
        data: All its bytes, a whole number of clusters (or FAT16's root).
        chain: Its clusters; none for FAT16's root.
        wide: Whether cluster numbers have 32 bits.
        where: What an error calls it.
        changed: Slots that were changed and are to be written.
        fresh: Places in the chain of clusters that are new, to be written whole.
    """

    def __init__(self, data: bytearray, chain: list[int], *, wide: bool, where: str) -> None:
        self.data, self.chain, self.wide, self.where = data, chain, wide, where
        self.changed: set[int] = set()
        self.fresh: list[int] = []
        self.entries = {fold(entry.name): entry for entry in self.read()}

    def read(self) -> Iterator[Entry]:
        """Yield the entries but labels, ``.`` and ``..``, as they stand in the bytes."""
        pieces: list[tuple[int, int, bytes]] = []
        for slot in range(len(self.data) // ENTRY_BYTES):
            raw = bytes(self.data[slot * ENTRY_BYTES : (slot + 1) * ENTRY_BYTES])
            if raw[0] == 0:
                return
            if raw[0] == _DELETED:
                pieces = []
            elif raw[11] & 0x3F == LONG:
                pieces = [*([] if raw[0] & 0x40 else pieces), long_piece(raw)]
            else:
                if not raw[11] & _LABEL and raw[:2] != b". " and raw[:3] != b".. ":
                    yield self._entry(raw, slot, pieces)
                pieces = []

    def _entry(self, raw: bytes, slot: int, pieces: list[tuple[int, int, bytes]]) -> Entry:
        short, attributes, case, _, _, _, _, high, _, _, low, size = struct.unpack(_SHORT_FORM, raw)
        long = _long_name(pieces, short) if pieces else ""
        cluster = (high << 16 if self.wide else 0) | low
        return Entry(
            long or short_text(short, case), short, attributes, cluster, size, slot, len(pieces) if long else 0
        )

    def find(self, name: str) -> Entry | None:
        """Return the entry of a name, whatever the case of its letters, or by its short name."""
        found = self.entries.get(fold(name))
        if found is not None:
            return found
        wanted = fold(name)
        return next((e for e in self.entries.values() if short_text(e.short) == wanted), None)

    def room(self, name: str) -> int:
        """Return how many more bytes of directory a new name needs: 0 if it fits."""
        count = self._slots_of(name)
        start = self._gap(count)
        return max(0, (start + count) * ENTRY_BYTES - len(self.data))

    @staticmethod
    def _slots_of(name: str) -> int:
        return 1 + (-(-len(name.encode("utf-16-le")) // 26) if needs_long(name) else 0)

    def _gap(self, count: int) -> int:
        """Return the first slot of so many free ones; they may lie beyond the end."""
        run = 0
        total = len(self.data) // ENTRY_BYTES
        for slot in range(total):
            first = self.data[slot * ENTRY_BYTES]
            if first == 0:
                return slot - run
            run = run + 1 if first == _DELETED else 0
            if run == count:
                return slot - count + 1
        return total - run

    def grow(self, clusters: list[int], cluster_bytes: int) -> None:
        """Append empty clusters."""
        self.fresh.extend(range(len(self.chain), len(self.chain) + len(clusters)))
        self.chain.extend(clusters)
        self.data.extend(bytes(len(clusters) * cluster_bytes))

    def add(self, name: str, attributes: int, when: dt.datetime) -> Entry:
        """Put a new entry in; there must be room."""
        field = short_name(name, {entry.short for entry in self.entries.values()})
        longs = long_entries(name, field) if needs_long(name) else []
        slot = self._gap(len(longs) + 1)
        was_end = any(self._is_end(slot + number) for number in range(len(longs) + 1))
        for number, raw in enumerate(longs):
            self._put(slot + number, raw)
        date, time = stamp(when)
        raw = struct.pack(_SHORT_FORM, field, attributes, 0, 0, time, date, date, 0, time, date, 0, 0)
        self._put(slot + len(longs), raw)
        if was_end:
            self._end_after(slot + len(longs))
        entry = Entry(name, field, attributes, 0, 0, slot + len(longs), len(longs))
        self.entries[fold(name)] = entry
        return entry

    def point(self, entry: Entry, cluster: int, size: int, when: dt.datetime) -> Entry:
        """Let an entry name other clusters, with another size and time; name and attributes stay."""
        at = entry.slot * ENTRY_BYTES
        date, time = stamp(when)
        struct.pack_into("<H", self.data, at + 18, date)
        struct.pack_into(
            "<HHHHI", self.data, at + 20, cluster >> 16 if self.wide else 0, time, date, cluster & 0xFFFF, size
        )
        self.changed.add(entry.slot)
        changed = replace(entry, cluster=cluster, size=size)
        self.entries[fold(entry.name)] = changed
        return changed

    def drop(self, entry: Entry) -> None:
        """Delete an entry with the pieces of its long name."""
        for slot in range(entry.slot - entry.pieces, entry.slot + 1):
            self.data[slot * ENTRY_BYTES] = _DELETED
            self.changed.add(slot)
        del self.entries[fold(entry.name)]

    def _is_end(self, slot: int) -> bool:
        at = slot * ENTRY_BYTES
        return at >= len(self.data) or self.data[at] == 0

    def _put(self, slot: int, raw: bytes) -> None:
        self.data[slot * ENTRY_BYTES : (slot + 1) * ENTRY_BYTES] = raw
        self.changed.add(slot)

    def _end_after(self, slot: int) -> None:
        """Keep the mark of the end behind what was added: what lies behind it was never cleared, perhaps."""
        at = (slot + 1) * ENTRY_BYTES
        if at < len(self.data) and self.data[at] != 0:
            self._put(slot + 1, bytes(ENTRY_BYTES))


def new_directory(size: int, cluster: int, parent: int, when: dt.datetime) -> bytearray:
    """Return the bytes of an empty directory: ``.`` names itself, ``..`` its parent, which is 0 for the root."""
    date, time = stamp(when)
    data = bytearray(size)
    for number, (name, at) in enumerate(((b".", cluster), (b"..", parent))):
        raw = (name.ljust(11), DIRECTORY, 0, 0, time, date, date, at >> 16, time, date, at & 0xFFFF, 0)
        struct.pack_into(_SHORT_FORM, data, number * ENTRY_BYTES, *raw)
    return data
