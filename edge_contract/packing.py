# SPDX-License-Identifier: Apache-2.0
"""Small integers in few bytes: LEB128 varints, zigzag for signs, a bitmap for the zeros of a histogram.

The latency histogram of a window has 32 buckets of which five are in use; a bitmap of 4 bytes and five
varints say the same as 32 bytes.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from edge_contract.errors import SummaryError

__all__ = ["Cursor", "pack_counts", "pack_signed", "pack_unsigned"]

_LIMIT: Final = 1 << 63


def pack_unsigned(values: Iterable[int]) -> bytes:
    """Return non-negative integers below 2^63 as LEB128 varints.

    Raises:
        SummaryError: A value is negative or does not fit in 63 bits.

    Example:
        >>> pack_unsigned([1, 300]).hex()
        '01ac02'
    """
    out = bytearray()
    for value in values:
        if not 0 <= value < _LIMIT:
            raise SummaryError(f"count {value} is not within 0 .. 2^63-1", where="summary")
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def pack_signed(values: Iterable[int]) -> bytes:
    """Return signed integers as zigzag varints (0, -1, 1, -2 … become 0, 1, 2, 3 …).

    Raises:
        SummaryError: A value does not fit in 62 bits and a sign.

    Example:
        >>> pack_signed([-1, 64]).hex()
        '018001'
    """
    return pack_unsigned(value << 1 if value >= 0 else (-value << 1) - 1 for value in values)


def pack_counts(values: Sequence[int]) -> bytes:
    """Return a histogram as a bitmap of its non-zero cells and their varints.

    Raises:
        SummaryError: As ``pack_unsigned``.

    Example:
        >>> pack_counts([0, 0, 5, 0, 0, 0, 0, 0, 9]).hex()
        '04010509'
    """
    bits = bytearray((len(values) + 7) // 8)
    for i, value in enumerate(values):
        if value:
            bits[i // 8] |= 1 << i % 8
    return bytes(bits) + pack_unsigned(value for value in values if value)


class Cursor:
    """Reads what the functions above wrote; every fault is a SummaryError.

    Example:
        >>> cursor = Cursor(pack_counts([0, 7, 0]) + pack_signed([-4]))
        >>> cursor.counts(3), cursor.signed(), cursor.ended
        ((0, 7, 0), -4, True)
    """

    def __init__(self, data: bytes, where: str = "summary") -> None:
        self._data, self._at, self._where = data, 0, where

    @property
    def ended(self) -> bool:
        """Whether every byte was read."""
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise SummaryError(f"cut short at byte {len(self._data)}", where=self._where)
        taken, self._at = self._data[self._at : end], end
        return taken

    def unsigned(self) -> int:
        """Return the next varint."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise SummaryError("a varint of more than nine bytes", where=self._where)

    def signed(self) -> int:
        """Return the next zigzag varint."""
        value = self.unsigned()
        return value >> 1 if value % 2 == 0 else -(value + 1 >> 1)

    def counts(self, size: int) -> tuple[int, ...]:
        """Return the next histogram of ``size`` cells."""
        bits = self.take((size + 7) // 8)
        values = tuple(self.unsigned() if bits[i // 8] >> i % 8 & 1 else 0 for i in range(size))
        spare = bits[-1] >> (size - 1) % 8 + 1 if size else 0
        if spare:
            raise SummaryError("bits beyond the histogram are set", where=self._where)
        return values
