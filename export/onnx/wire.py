# SPDX-License-Identifier: Apache-2.0
"""Walk the wire format of protocol buffers: every length is checked, nothing is copied.

Three lines of a foreign file can ask a full parser for gigabytes (a field of empty messages costs two bytes each in
the file and a hundred in memory). This walk yields one field after the other; what is kept is the reader's choice.
Format: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MalformedError", "fields", "signed64", "varints"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_CHUNK: Final = 1 << 16  # bytes decoded at once


class MalformedError(ValueError):
    """The bytes are not what they are taken for; the reader that knows the file translates it."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    r"""Yield (field number, value) of one message: an int for a varint, a view of the bytes for all others.

    Raises:
        MalformedError: A length that leaves the message, a varint without an end, or an unknown wire type.

    Example:
        >>> (first, five), (second, text) = fields(memoryview(b"\x08\x05\x12\x01a"))
        >>> first, five, second, bytes(text)
        (1, 5, 2, b'a')
    """
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(data, place)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise MalformedError(f"wire type {kind} at byte {place}")
        if length > end - place:
            raise MalformedError(f"a field of {length} bytes where {end - place} are left")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise MalformedError("a number without an end")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
    raise MalformedError("a number of more than 64 bits")


def signed64(value: int) -> int:
    """Return the two's complement of a varint's 64 bits.

    Example:
        >>> signed64(2**64 - 1)
        -1
    """
    return value - (1 << 64) if value >= 1 << 63 else value


def varints(packed: memoryview) -> NDArray[np.int64]:
    r"""Return the numbers of a packed repeated field, int64 [n]: eight bytes of memory for each in the file at most.

    Raises:
        MalformedError: The last number has no end, or one has more than ten bytes.

    Example:
        >>> varints(memoryview(b"\x01\xac\x02")).tolist()
        [1, 300]
    """
    found, place = [np.zeros(0, np.int64)], 0
    while place < len(packed):
        chunk = np.frombuffer(packed[place : place + _CHUNK], np.uint8)
        ends = np.flatnonzero(chunk < 128)
        if not len(ends):
            raise MalformedError("a packed number without an end")
        found.append(_decoded(chunk[: ends[-1] + 1], ends))
        place += int(ends[-1]) + 1
    return np.concatenate(found)


def _decoded(data: NDArray[np.uint8], ends: NDArray[Any]) -> NDArray[np.int64]:
    starts = np.concatenate([[0], ends[:-1] + 1])
    if int((ends - starts).max()) > 9:
        raise MalformedError("a packed number of more than ten bytes")
    position = np.arange(len(data)) - np.repeat(starts, ends - starts + 1)
    parts = (data & 127).astype(np.uint64) << (7 * position).astype(np.uint64)
    found: NDArray[Any] = np.add.reduceat(parts, starts).view(np.int64)
    return found
