# SPDX-License-Identifier: Apache-2.0
"""Where the constants of a TFLite file lie: buffers inside and behind the flatbuffer, vectors of scales.

``export.tflite.reader`` gives a file's values; a patch needs their places. So this walk follows only the few tables
that lead to constants, and checks every offset before it goes there.

Reference: "FlatBuffer Internals", https://flatbuffers.dev/internals/; slots as in the public ``schema.fbs``.
"""

import struct
from collections.abc import Iterator
from typing import Final

from edge_contract.errors import ModelError
from export.delta.parts import Part
from export.tflite.schema import ENUMS, TENSOR_BITS

__all__ = ["parts"]

# Slots: Model, SubGraph, Tensor, QuantizationParameters, Buffer
_SUBGRAPHS, _BUFFERS = 2, 4
_TENSORS = 0
_TYPE, _BUFFER, _NAME, _QUANTIZATION = 1, 2, 3, 4
_SCALE, _ZERO_POINT = 2, 3
_DATA, _OFFSET, _SIZE = 0, 1, 2
_MAX_TABLES: Final = 500_000


class _Flat:
    """Numbers, tables and vectors of a flatbuffer; every method raises ModelError where the file lies."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where, self._left = data, where, _MAX_TABLES

    def number(self, letter: str, at: int) -> int:
        size = struct.calcsize(letter)
        if at < 0 or at + size > len(self._data):
            raise ModelError(f"offset {at} lies outside the file", where=self._where)
        return int(struct.unpack_from(f"<{letter}", self._data, at)[0])

    def span(self, at: int, length: int) -> tuple[int, int]:
        if at < 0 or at + length > len(self._data):
            raise ModelError(f"{length} bytes at {at} lie outside the file", where=self._where)
        return at, length

    def field(self, table: int, slot: int) -> int:
        """Return where a table's field lies, 0 if it is absent."""
        vtable = table - self.number("i", table)
        place = 4 + 2 * slot
        offset = self.number("H", vtable + place) if place < self.number("H", vtable) else 0
        return table + offset if offset else 0

    def target(self, at: int) -> int:
        return at + self.number("I", at) if at else 0

    def scalar(self, table: int, slot: int, letter: str) -> int:
        at = self.field(table, slot)
        return self.number(letter, at) if at else 0

    def vector(self, table: int, slot: int, width: int) -> tuple[int, int]:
        """Return (offset, bytes) of a vector's elements; (0, 0) if it is absent."""
        at = self.target(self.field(table, slot))
        return self.span(at + 4, self.number("I", at) * width) if at else (0, 0)

    def tables(self, table: int, slot: int) -> Iterator[int]:
        start, size = self.vector(table, slot, 4)
        for at in range(start, start + size, 4):
            self._left -= 1
            if self._left < 0:
                raise ModelError(f"more than {_MAX_TABLES} tables", where=self._where)
            yield self.target(at)

    def text(self, table: int, slot: int) -> str:
        start, size = self.vector(table, slot, 1)
        return self._data[start : start + min(size, 200)].decode(errors="backslashreplace")


def parts(data: bytes, where: str) -> list[Part]:
    """Return each constant buffer, and each vector of scales and zero points, that a tensor names.

    Raises:
        ModelError: An offset leaves the file.
    """
    flat = _Flat(data, where)
    model = flat.number("I", 0)
    buffers = [_bytes(flat, table) for table in flat.tables(model, _BUFFERS)]
    found: list[Part] = []
    for graph in flat.tables(model, _SUBGRAPHS):
        for tensor in flat.tables(graph, _TENSORS):
            found += _of_tensor(flat, tensor, buffers)
    return found


def _bytes(flat: _Flat, table: int) -> tuple[int, int]:
    """Return (offset, length) of a buffer, inside the flatbuffer or behind it."""
    start, size = flat.vector(table, _DATA, 1)
    behind = flat.scalar(table, _OFFSET, "Q")
    return flat.span(behind, flat.scalar(table, _SIZE, "Q")) if not size and behind > 1 else (start, size)


def _of_tensor(flat: _Flat, tensor: int, buffers: list[tuple[int, int]]) -> Iterator[Part]:
    name, kinds = flat.text(tensor, _NAME), ENUMS["TensorType"]
    index, kind = flat.scalar(tensor, _BUFFER, "I"), flat.scalar(tensor, _TYPE, "b")
    if 0 <= index < len(buffers) and buffers[index][1] and 0 <= kind < len(kinds):
        width = max(1, TENSOR_BITS.get(kinds[kind].lower(), 8) // 8)
        yield Part(*buffers[index], width if width in (1, 2, 4, 8) else 1, name)
    quantization = flat.target(flat.field(tensor, _QUANTIZATION))
    if quantization:
        for slot, width, what in ((_SCALE, 4, "scales"), (_ZERO_POINT, 8, "zero points")):
            start, size = flat.vector(quantization, slot, width)
            if size:
                yield Part(start, size, width, f"{name}: {what}")
