# SPDX-License-Identifier: Apache-2.0
"""Take out of a shared library what is never loaded: debuggers' symbols, the table of sections, gaps between segments.

Neither the kernel nor the dynamic linker reads sections: both follow the program header. Segments keep their addresses
and their order, and move down in the file as far as page alignment allows (patchelf leaves megabytes between them).

Standard: the ELF-64 object file format, version 1.5, "Program Loading": offset and address agree modulo the alignment.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["stripped"]

_MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, least significant byte first
_SHARED: Final = 3
_LOAD: Final = 1
_ENTRY: Final = struct.Struct("<IIQQQQQQ")
_HEADER: Final = 64


@dataclass(frozen=True)
class _Segment:
    """One entry of the program header: which kind, where in the file, at which address, how long, aligned to what."""

    kind: int
    offset: int
    address: int
    size: int
    align: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def stripped(data: bytes) -> bytes:
    """Return a library without what no program loads; anything else, or an unusual one, comes back as it is.

    Example:
        >>> stripped(b"no library")
        b'no library'
    """
    segments = _segments(data)
    loads = sorted((one for one in segments if one.kind == _LOAD and one.size), key=lambda one: one.offset)
    if not loads or loads[0].offset != 0 or loads[0].size < _HEADER + len(segments) * _ENTRY.size:
        return data
    moved: list[tuple[_Segment, int]] = []
    written = 0
    for one in loads:
        if one.offset < (moved[-1][0].end if moved else 0) or one.end > len(data):
            return data  # two segments share bytes, or it is cut short
        start = min(one.offset, written + (one.address - written) % max(1, one.align))
        moved.append((one, start))
        written = start + one.size
    return _written(data, segments, moved, written) if written < len(data) else data


def _segments(data: bytes) -> list[_Segment]:
    """Return the program header; empty for what is no shared library of 64 bits."""
    if not data.startswith(_MAGIC) or len(data) < _HEADER or struct.unpack_from("<H", data, 16)[0] != _SHARED:
        return []
    at = struct.unpack_from("<Q", data, 32)[0]
    size, count = struct.unpack_from("<HH", data, 54)
    if size != _ENTRY.size or at != _HEADER or at + size * count > len(data):
        return []
    found = []
    for i in range(count):
        kind, _, offset, address, _, in_file, _, align = _ENTRY.unpack_from(data, at + i * size)
        found.append(_Segment(kind, offset, address, in_file, align))
    return found


def _written(data: bytes, segments: Sequence[_Segment], moved: Sequence[tuple[_Segment, int]], size: int) -> bytes:
    made = bytearray(size)
    for one, start in moved:
        made[start : start + one.size] = data[one.offset : one.end]
    for i, segment in enumerate(segments):
        home = next(((one, start) for one, start in moved if one.offset <= segment.offset <= one.end), None)
        if home is not None and segment.offset:
            struct.pack_into("<Q", made, _HEADER + i * _ENTRY.size + 8, segment.offset - home[0].offset + home[1])
    struct.pack_into("<Q", made, 40, 0)  # e_shoff, e_shnum, e_shstrndx: there are no sections
    struct.pack_into("<HH", made, 60, 0, 0)
    return bytes(made)
