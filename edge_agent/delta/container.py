# SPDX-License-Identifier: Apache-2.0
r"""The patch file: a header, a table of streams, the streams. Version 1.

::

    offset  size
    0       8     b"STROPDLT"
    8       1     version, 1
    9       1     codec: 1 tensors, 2 zstd-prefix, 3 zstd (an empty base); the form is one
    10      2     number of streams, 6
    12      32    SHA-256 of the base
    44      32    SHA-256 of the result
    76      8     bytes of the base
    84      8     bytes of the result
    92      96    for each stream: bytes in this file, bytes after decompression
    188           the streams back to back; the file ends with the last one

All numbers are little-endian. A stream is empty or a chain of zstd frames (RFC 8878) without dictionary; only frames
of ``LITERALS`` lean on ranges of the base, named by ``FRAME``. Streams: ``CONTROL`` is the list of operations,
``LITERALS`` new bytes, ``DIFFS`` byte differences, ``PLANES`` differences of wider elements split into byte planes,
``GAPS`` and ``VALUES`` the places and differences of sparse changes.

An operation is a code and LEB128 numbers. Each but ``FRAME`` makes the next bytes of the result; base offsets are
told as zigzag distances from where the last operation on the base ended:

=======  ==========================================  ===========================================================
code     numbers                                     the next bytes of the result
=======  ==========================================  ===========================================================
COPY     distance, length                            base bytes
INSERT   length                                      of LITERALS
ADD      distance, length, log2 of the width         base + difference, modulo 2^(8 width), for each element
SPARSE   distance, length, bytes of GAPS             base bytes; at each place a difference is added, modulo 256
FRAME    bytes in the file, bytes, n, n × (distance, none: LITERALS goes on with its next zstd frame, whose raw
         length)                                     dictionary is these base ranges, one after the other
=======  ==========================================  ===========================================================

A gap is one byte: 255 means "255 further, no change here". Whoever reads a patch trusts nothing in it: ``Header``
and ``operations`` check every number against the bounds below before a byte is allocated for it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edge_contract.errors import DeltaError

__all__ = [
    "CODECS",
    "MAX_CHUNK",
    "MAX_CONTROL_BYTES",
    "MAX_FILE_BYTES",
    "MAX_FRAME_MEMORY",
    "STREAM_WINDOW",
    "Code",
    "Header",
    "Operation",
    "Stream",
    "malformed",
    "operations",
    "unzigzag",
]

MAGIC: Final = b"STROPDLT"
VERSION: Final = 1
CODECS: Final = {1: "tensors", 2: "zstd-prefix", 3: "zstd"}
MAX_FILE_BYTES: Final = 2_000_000_000
"""Of base and result: what the server takes as a blob."""
MAX_CONTROL_BYTES: Final = 1 << 20
MAX_CHUNK: Final = 1 << 18
"""Bytes that one ADD or SPARSE makes at most: they are worked on in memory, whole."""
MAX_FRAME_MEMORY: Final = 40 << 20
"""Bytes of a frame's dictionary (at most half of it) and its window; with Python and zstd it stays below 64 MB."""
STREAM_WINDOW: Final = 1 << 20
"""Largest window of the other streams."""
MAX_RANGES: Final = 20_000

_HEAD: Final = struct.Struct("<8sBBH32s32sQQ")
_ENTRY: Final = struct.Struct("<QQ")


class Stream(IntEnum):
    """The streams in the order in which they lie."""

    CONTROL = 0
    LITERALS = 1
    DIFFS = 2
    PLANES = 3
    GAPS = 4
    VALUES = 5


class Code(IntEnum):
    """What an operation does."""

    COPY = 0
    INSERT = 1
    ADD = 2
    SPARSE = 3
    FRAME = 4


_HEADER_BYTES: Final = _HEAD.size + len(Stream) * _ENTRY.size


def malformed(what: str) -> DeltaError:
    """Return the one error that a damaged or hostile patch gives."""
    return DeltaError(f"not a whole patch: {what}", where="patch", fix="the full file is fetched instead")


@dataclass(frozen=True)
class Header:
    """What a patch says of itself.

    Attributes:
        codec: A value of ``CODECS``.
        base, result: SHA-256 in hexadecimal.
        base_size, result_size: Bytes.
        streams: For each stream its bytes in the file and its bytes after decompression.
    """

    codec: str
    base: str
    result: str
    base_size: int
    result_size: int
    streams: tuple[tuple[int, int], ...]

    SIZE = _HEADER_BYTES

    def to_bytes(self) -> bytes:
        """Return the header and the table.

        Example:
            >>> head = Header("tensors", "ab" * 32, "cd" * 32, 10, 12, ((5, 9),) + ((0, 0),) * 5)
            >>> Header.from_bytes(head.to_bytes(), Header.SIZE + 5) == head
            True
        """
        codec = next(number for number, name in CODECS.items() if name == self.codec)
        digests = bytes.fromhex(self.base), bytes.fromhex(self.result)
        head = _HEAD.pack(MAGIC, VERSION, codec, len(Stream), *digests, self.base_size, self.result_size)
        return head + b"".join(_ENTRY.pack(*entry) for entry in self.streams)

    @classmethod
    def from_bytes(cls, data: bytes, file_size: int) -> "Header":
        """Return the header of a patch file of ``file_size`` bytes.

        Raises:
            DeltaError: Not a patch, of another version, or of a size that its own table contradicts.
        """
        if len(data) < _HEADER_BYTES or data[:8] != MAGIC:
            raise malformed("its mark is missing")
        _, version, codec, count, base, result, base_size, result_size = _HEAD.unpack_from(data)
        if version != VERSION or codec not in CODECS or count != len(Stream):
            raise malformed(f"version {version}, codec {codec}, {count} streams are not known here")
        if max(base_size, result_size) > MAX_FILE_BYTES:
            raise malformed(f"files of {base_size} and {result_size} bytes")
        streams = tuple(_ENTRY.unpack_from(data, _HEAD.size + i * _ENTRY.size) for i in range(count))
        if _HEADER_BYTES + sum(packed for packed, _ in streams) != file_size:
            raise malformed(f"{file_size} bytes, its table says otherwise")
        if streams[Stream.CONTROL][1] > MAX_CONTROL_BYTES:
            raise malformed(f"{streams[Stream.CONTROL][1]} bytes of operations")
        return cls(CODECS[codec], base.hex(), result.hex(), base_size, result_size, streams)

    def start(self, stream: Stream) -> int:
        """Return where a stream begins in the file."""
        return _HEADER_BYTES + sum(packed for packed, _ in self.streams[:stream])


@dataclass(frozen=True)
class Operation:
    """One step.

    Attributes:
        code: What to do.
        length: Bytes of the result that it makes; of FRAME, raw bytes of the frame.
        offset: Where in the base; 0 for INSERT and FRAME.
        extra: Width of ADD, bytes of GAPS for SPARSE, bytes in the file for FRAME; else 0.
        ranges: Of FRAME: (offset, length) in the base.
    """

    code: Code
    length: int
    offset: int = 0
    extra: int = 0
    ranges: tuple[tuple[int, int], ...] = ()


def unzigzag(value: int) -> int:
    """Return the signed number of 0, 1, 2, 3 … = 0, -1, 1, -2 …"""
    return (value >> 1) ^ -(value & 1)


class _Numbers:
    """LEB128 numbers of the control stream, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def next(self) -> int:
        value = shift = 0
        while True:
            if self.at >= len(self._data) or shift > 35:
                raise malformed("an operation is cut off")
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


class _Reader:
    """Checks each operation against the base's size and what the result still needs."""

    def __init__(self, control: bytes, base_size: int, result_size: int) -> None:
        self._numbers, self._size = _Numbers(control), len(control)
        self._base_size, self._left, self._place = base_size, result_size, 0

    def read(self) -> Iterator[Operation]:
        while self._numbers.at < self._size:
            code = self._numbers.next()
            if code > Code.FRAME:
                raise malformed(f"operation {code}")
            yield self._frame() if code == Code.FRAME else self._step(Code(code))
        if self._left:
            raise malformed(f"{self._left} bytes of the result are made by nothing")

    def _range(self) -> tuple[int, int]:
        offset, length = self._place + unzigzag(self._numbers.next()), self._numbers.next()
        if offset < 0 or offset + length > self._base_size:
            raise malformed(f"{length} bytes at {offset} lie outside the base")
        self._place = offset + length
        return offset, length

    def _step(self, code: Code) -> Operation:
        offset, length = (0, self._numbers.next()) if code == Code.INSERT else self._range()
        if not 0 < length <= self._left:
            raise malformed(f"an operation makes {length} bytes, {self._left} are missing")
        self._left -= length
        extra = self._numbers.next() if code in (Code.ADD, Code.SPARSE) else 0
        if code == Code.ADD:
            if extra > 3 or length % (1 << extra):
                raise malformed(f"{length} bytes of elements of 2^{extra} bytes")
            extra = 1 << extra
        if code in (Code.ADD, Code.SPARSE) and (length > MAX_CHUNK or extra > 2 * length):
            raise malformed(f"an operation works on {length} bytes at once")
        return Operation(code, length, offset, extra)

    def _frame(self) -> Operation:
        packed, length, count = (self._numbers.next() for _ in range(3))
        if count > MAX_RANGES:
            raise malformed(f"a dictionary of {count} parts")
        ranges = tuple(self._range() for _ in range(count))
        if 2 * sum(size for _, size in ranges) > MAX_FRAME_MEMORY:  # it is copied once, while it is made
            raise malformed("a dictionary larger than the memory for it")
        return Operation(Code.FRAME, length, 0, packed, ranges)


def operations(control: bytes, base_size: int, result_size: int) -> Iterator[Operation]:
    r"""Yield the checked operations of a control stream.

    Raises:
        DeltaError: A number out of its bounds, or a result of another size.

    Example:
        >>> [step.code.name for step in operations(b"\x00\x04\x03\x01\x02", 10, 5)]
        ['COPY', 'INSERT']
        >>> list(operations(b"\x00\x04\x0f", 10, 15))
        Traceback (most recent call last):
        edge_contract.errors.DeltaError: patch: not a whole patch: 15 bytes at 2 lie outside the base; ...
    """
    return _Reader(control, base_size, result_size).read()
