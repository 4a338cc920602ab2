# SPDX-License-Identifier: Apache-2.0
"""Decode a TFLite file into plain dictionaries without trusting a byte of it.

A flatbuffer is a web of relative offsets: a table points to its vtable (which fields there are, and where), to vectors,
strings and other tables. Each jump here is checked against the file's end before it is made. Offsets may also point to
one place many times over, so that a few kilobytes could decode to gigabytes; each decoded object is therefore charged
to a budget that grows with the file, and whoever exceeds it is refused.

Reference: "FlatBuffer Internals", https://flatbuffers.dev/internals/
"""

import struct
from typing import Any, Final

from edge_contract.errors import ModelError
from export.tflite.schema import ENUMS, TABLES, Field

__all__ = ["FILE_ID", "MAX_BYTES", "Table", "Walker", "decode"]

FILE_ID: Final = b"TFL3"
MAX_BYTES: Final = 2 << 30  # offsets inside a flatbuffer have 31 bits; constants behind it may lie anywhere
Table = dict[str, Any]
"""Field name → value: a number, bytes (strings and byte vectors), a tuple, a Table, a list of Tables, or None."""

# Charges in bytes of Python memory. Real files cost at most 5 per byte, graphs with nearly no weights up to 30.
_TABLE_COST: Final = 400
_ITEM_COST: Final = 40
_SHARED_COST: Final = 8
_BUDGET_FACTOR: Final = 16
_BUDGET_FLOOR: Final = 16 << 20  # enough for 8 000 operators without any weights
_NEWER: Final = 16  # fields that a newer schema may have added to a table
_RAW_FACTOR: Final = 2  # constants that lie over each other more than twice are no model


class Walker:
    """Reads tables of one file; every method raises ModelError where the file lies."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where, self._size = data, where, len(data)
        self._budget = _BUDGET_FLOOR + _BUDGET_FACTOR * len(data)
        self._raw_budget = (1 << 20) + _RAW_FACTOR * len(data)
        self._raw: dict[tuple[int, int], bytes] = {}
        self._vectors: dict[tuple[str, int, int], tuple[Any, ...]] = {}
        self.unknown: set[str] = set()

    def error(self, what: str) -> ModelError:
        """Return the one error that a damaged file gives."""
        fix = "give the file as its maker wrote it, whole"
        return ModelError(f"not a whole TFLite file: {what}", where=self._where, fix=fix)

    def _number(self, letter: str, at: int) -> Any:
        if at < 0 or at + struct.calcsize(letter) > self._size:
            raise self.error(f"offset {at} lies outside its {self._size} bytes")
        return struct.unpack_from(f"<{letter}", self._data, at)[0]

    def _charge(self, cost: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise self.error("it points to the same bytes over and over")

    def raw(self, at: int, length: int) -> bytes:
        """Return ``length`` bytes; the same object for the same place, however many ask."""
        if at < 0 or at + length > self._size:
            raise self.error(f"{length} bytes at {at} reach past its {self._size} bytes")
        if (at, length) not in self._raw:
            self._raw_budget -= length
            if self._raw_budget < 0:
                raise self.error("its constants lie over each other")
            self._raw[at, length] = self._data[at : at + length]
        return self._raw[at, length]

    def table(self, kind: str, at: int) -> Table:
        """Return the table of a kind at an offset, with the defaults of absent fields filled in."""
        self._charge(_TABLE_COST)
        vtable = at - self._number("i", at)
        width = self._number("H", vtable)
        fields, found = TABLES.get(kind, ()), Table()
        count = (width - 4) // 2
        if width < 4 or width % 2 or vtable + width > self._size or count > len(fields) + _NEWER:
            raise self.error(f"the table at {at} has a broken directory")
        slots = struct.unpack_from(f"<{count}H", self._data, vtable + 4)
        for field, slot in zip(fields, (*slots, *[0] * len(fields)), strict=False):
            found[field.name] = self._field(field, at + slot if slot else 0, found)
        if any(slots[len(fields) :]):
            self.unknown.add(kind)
        return found

    def _field(self, field: Field, at: int, before: Table) -> Any:
        """Return a field's value; ``at`` is 0 for an absent one (offset 0 holds the root, never a field)."""
        if field.is_vector:
            return self._vector(field, at + self._number("I", at)) if at else None
        if field.kind.startswith("@"):
            return self._union(field, at, before)
        if field.kind == "s":
            return self._string(at + self._number("I", at)) if at else None
        if len(field.kind) > 1:
            return self.table(field.kind, at + self._number("I", at)) if at else None
        return self._number(field.kind, at) if at else field.default

    def _union(self, field: Field, at: int, before: Table) -> Table | None:
        """Return the table that the number in the field before it names; None if there is none or it is not known."""
        names, number = ENUMS[field.kind[1:]], before[f"{field.name}_type"]
        if not at or not number:
            return None
        if number >= len(names):
            self.unknown.add(field.name)
            return None
        return self.table(names[number], at + self._number("I", at))

    def _string(self, at: int) -> bytes:
        length = self._number("I", at)
        self._charge(_ITEM_COST + 4 * length)  # each holder makes its own text, of which bytes may become \\xff
        return self.raw(at + 4, length)

    def _vector(self, field: Field, at: int) -> Any:
        length = self._number("I", at)
        if field.kind == "B":
            self._charge(_ITEM_COST)
            return self.raw(at + 4, length)
        size = 4 if len(field.kind) > 1 else struct.calcsize(field.kind)
        if at + 4 + length * size > self._size:
            raise self.error(f"{length} items of '{field.name}' at {at} reach past its {self._size} bytes")
        if len(field.kind) == 1:
            return self._numbers(field.kind, at + 4, length)
        places = range(at + 4, at + 4 + 4 * length, 4)
        return [self.table(field.kind, place + self._number("I", place)) for place in places]

    def _numbers(self, letter: str, at: int, length: int) -> tuple[Any, ...]:
        """Return a vector of numbers; the same object for the same place, since good writers share equal ones.

        Sharing costs a little too, because whoever reads the vectors works once for each.
        """
        key = (letter, at, length)
        self._charge(_ITEM_COST + length * (_SHARED_COST if key in self._vectors else _ITEM_COST))
        if key not in self._vectors:
            self._vectors[key] = struct.unpack_from(f"<{length}{letter}", self._data, at)
        return self._vectors[key]


def decode(data: bytes, where: str) -> tuple[Table, Walker]:
    """Return the root table of a TFLite file, and the walker, which reads what lies behind the flatbuffer too.

    Raises:
        ModelError: The file is truncated or lies about where something is.
    """
    if len(data) > MAX_BYTES:
        raise ModelError("more than the 2 GiB that a TFLite file can hold", where=where)
    walker = Walker(data, where)
    if len(data) < 8 or data[4:8] != FILE_ID:
        raise ModelError("not a TFLite file: its mark 'TFL3' is missing", where=where, fix="give a .tflite file")
    return walker.table("Model", walker._number("I", 0)), walker  # noqa: SLF001  # the same file
