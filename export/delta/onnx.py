# SPDX-License-Identifier: Apache-2.0
"""Where the constants of an ONNX file lie: raw bytes and packed floats of initializers and of Constant nodes.

``export.onnx.reader`` gives a file's values; a patch needs their places. Field numbers: onnx/onnx.proto.
"""

from collections.abc import Iterator
from typing import Final

from edge_contract.errors import ModelError
from export.delta.parts import Part

__all__ = ["parts"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS: Final = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 4, 15: 8, 16: 2}
"""ONNX's number of a type → bytes of an element; all others are bytes."""
_NAME, _KIND, _FLOATS, _RAW, _DOUBLES = 8, 2, 4, 9, 10
_MAX_FIELDS: Final = 500_000
_MAX_DEPTH: Final = 12


class _Wire:
    """Yields the fields of messages with their places; every length is checked."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where, self._left = data, where, _MAX_FIELDS

    def error(self, what: str) -> ModelError:
        return ModelError(f"not an ONNX file: {what}", where=self._where)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise self.error("a number without an end")

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (field number, offset, length, value): the value of a varint, else 0."""
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise self.error(f"more than {_MAX_FIELDS} parts")
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if kind == _VARINT:
                value, after = self._varint(at, end)
                yield number, at, after - at, value
                at = after
                continue
            if kind not in (_FIXED64, _BYTES, _FIXED32):
                raise self.error(f"wire type {kind} at byte {at}")
            length, at = self._varint(at, end) if kind == _BYTES else (8 if kind == _FIXED64 else 4, at)
            if length > end - at:
                raise self.error(f"a field of {length} bytes where {end - at} are left")
            yield number, at, length, 0
            at += length

    def text(self, at: int, length: int) -> str:
        return self._data[at : at + min(length, 200)].decode(errors="backslashreplace")


def parts(data: bytes, where: str) -> list[Part]:
    """Return the bytes of each constant tensor that lies in this file.

    Raises:
        ModelError: Not an ONNX file, or cut off.
    """
    wire = _Wire(data, where)
    graphs = [(at, at + size) for number, at, size, _ in wire.fields(0, len(data)) if number == 7]
    return [part for start, end in graphs for part in _graph(wire, start, end, 0)]


def _graph(wire: _Wire, start: int, end: int, depth: int) -> Iterator[Part]:
    if depth > _MAX_DEPTH:
        raise wire.error("graphs inside graphs")
    for number, at, size, _ in wire.fields(start, end):
        if number == 5:
            yield from _tensor(wire, at, at + size, "")
        elif number == 1:
            yield from _node(wire, at, at + size, depth)


def _node(wire: _Wire, start: int, end: int, depth: int) -> Iterator[Part]:
    held, name = [], ""
    for number, at, size, _ in wire.fields(start, end):
        if number == 2:
            name = wire.text(at, size)
        elif number == 5:
            held.append((at, at + size))
    for attribute in held:
        for number, at, size, _ in wire.fields(*attribute):
            if number == 5:
                yield from _tensor(wire, at, at + size, name)
            elif number == 6:
                yield from _graph(wire, at, at + size, depth + 1)


def _tensor(wire: _Wire, start: int, end: int, name: str) -> Iterator[Part]:
    width, runs = 1, []
    for number, at, size, value in wire.fields(start, end):
        if number == _KIND:
            width = _WIDTHS.get(value, 1)
        elif number == _NAME:
            name = wire.text(at, size) or name
        elif number in (_FLOATS, _RAW, _DOUBLES):
            runs.append((number, at, size))
    for number, at, size in runs:
        yield Part(at, size, {_FLOATS: 4, _DOUBLES: 8}.get(number, width), name)
