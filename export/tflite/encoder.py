# SPDX-License-Identifier: Apache-2.0
"""Encode decoded tables as a TFLite file: small, with aligned constants, the same bytes for the same tables.

Written front to back, so that the place of each byte is known when it is written: first the tables that hold tables,
then those that hold none (quantization, options), then vectors and strings. What is equal is written once. Every offset
points forward, as the format wants.

The generated Python code of the schema writes back to front, shares nothing, and leaves out the alignment that the
schema asks for constants. Zero points alone, 8 bytes a channel and nearly always 0, are a tenth of a small int8 file.

Reference: "FlatBuffer Internals", https://flatbuffers.dev/internals/
"""

import struct
from typing import Any, Final

from edge_contract.errors import ModelError
from export.tflite.schema import ENUMS, TABLES, Field, is_scalar
from export.tflite.walk import FILE_ID, Table

__all__ = ["ALIGNMENT", "encode"]

ALIGNMENT: Final = 16  # the schema's force_align of Buffer.data
_LIMIT: Final = (1 << 31) - 1


def encode(root: Table, where: str = "") -> bytes:
    """Return the file of a ``Model`` table, as ``flatbuffer_walk.decode`` gives it.

    Raises:
        ModelError: The file would be larger than the format allows (2 GiB).
    """
    packer = _Packer()
    packer.out += bytes(4) + FILE_ID
    packer.point(0, packer.table("Model", root))
    packer.shared()
    if len(packer.out) > _LIMIT:
        raise ModelError(f"{len(packer.out)} bytes are more than a TFLite file can hold (2 GiB)", where=where)
    return bytes(packer.out)


class _Packer:
    """The file so far, where each vtable lies, and what is still to be written with the places that point to it."""

    def __init__(self) -> None:
        self.out = bytearray()
        self._vtables: dict[bytes, int] = {}
        self._leaf_tables: dict[bytes, tuple[str, Table, list[int]]] = {}
        self._leaves: dict[tuple[int, bytes], list[int]] = {}

    def point(self, at: int, to: int) -> None:
        """Write the offset from one place to a later one."""
        struct.pack_into("<I", self.out, at, to - at)

    def _align(self, size: int, ahead: int = 0) -> int:
        """Pad until the place ``ahead`` of the end is a multiple of ``size``; return the end."""
        self.out += bytes(-(len(self.out) + ahead) % size)
        return len(self.out)

    def shared(self) -> None:
        """Write what tables point to: each of it once."""
        for kind, table, places in self._leaf_tables.values():
            self._point_all(places, self.table(kind, table))
        for (alignment, raw), places in self._leaves.items():
            # The length stands before the items, and they are what is aligned.
            self._point_all(places, self._align(alignment, 4))
            self.out += raw

    def _point_all(self, places: list[int], to: int) -> None:
        for place in places:
            self.point(place, to)

    def table(self, kind: str, table: Table) -> int:
        """Write a table, and the tables below it that hold tables; return its place."""
        present = _present(kind, table)
        slots, width = _layout(present)
        at = self._start(kind, present, slots, width)
        self.out += bytes(width)
        struct.pack_into("<i", self.out, at, at - self._vtables[_directory(kind, slots, width)])
        for field in present:
            place = at + slots[field.name]
            if is_scalar(field):
                struct.pack_into(f"<{field.kind}", self.out, place, table[field.name])
            else:
                self._child(field, table, place)
        return at

    def _start(self, kind: str, present: list[Field], slots: dict[str, int], width: int) -> int:
        """Write the vtable unless an equal one is there; return where its table starts."""
        directory = _directory(kind, slots, width)
        if directory not in self._vtables:
            self._vtables[directory] = self._align(2)
            self.out += directory
        return self._align(8 if any(is_scalar(field) and field.kind in "qQ" for field in present) else 4)

    def _child(self, field: Field, table: Table, place: int) -> None:
        """Write what a field points to, or leave it for later where it may be shared."""
        value = table[field.name]
        if len(field.kind) == 1:
            self._leaves.setdefault(_leaf(field, value), []).append(place)
        elif field.is_vector:
            self._tables(field.kind, value, place)
        else:
            kind = _kind(field, table)
            if any(len(inner.kind) > 1 for inner in _present(kind, value)):
                self.point(place, self.table(kind, value))
            else:
                self._leaf_tables.setdefault(_content(kind, value), (kind, value, []))[2].append(place)

    def _tables(self, kind: str, tables: list[Table], place: int) -> None:
        at = self._align(4)
        self.point(place, at)
        self.out += struct.pack("<I", len(tables)) + bytes(4 * len(tables))
        for index, table in enumerate(tables):
            entry = at + 4 + 4 * index
            self.point(entry, self.table(kind, table))


def _kind(field: Field, table: Table) -> str:
    """Return the kind of table that a field holds; a union's is told by the number before it."""
    return ENUMS[field.kind[1:]][table[f"{field.name}_type"]] if field.kind.startswith("@") else field.kind


def _present(kind: str, table: Table) -> list[Field]:
    """Return the fields that are written: an absent one means its default."""
    fields = [field for field in TABLES.get(kind, ()) if table.get(field.name) is not None]
    return [field for field in fields if not is_scalar(field) or table[field.name] != field.default]


def _leaf(field: Field, value: Any) -> tuple[int, bytes]:
    """Return the alignment and the bytes of a string or vector, with its length before it."""
    size = struct.pack("<I", len(value))
    if field.kind == "s":
        return 4, size + value + b"\0"
    if field.kind == "B":
        # Every byte vector is aligned like a constant: the others are few, and a custom operator may want it too.
        return ALIGNMENT, size + value
    return max(struct.calcsize(field.kind), 4), size + struct.pack(f"<{len(value)}{field.kind}", *value)


def _content(kind: str, table: Table) -> bytes:
    """Return bytes that are equal for equal tables without tables in them."""
    parts = [kind.encode()]
    for field in _present(kind, table):
        value = table[field.name]
        raw = struct.pack(f"<{field.kind}", value) if is_scalar(field) else _leaf(field, value)[1]
        parts += [field.name.encode(), raw]
    return b"\0".join(parts)


def _directory(kind: str, slots: dict[str, int], width: int) -> bytes:
    """Return the vtable: its size, the table's, and each field's offset up to the last that is present."""
    offsets = [slots.get(field.name, 0) for field in TABLES.get(kind, ())]
    while offsets and not offsets[-1]:
        offsets.pop()
    return struct.pack(f"<HH{len(offsets)}H", 4 + 2 * len(offsets), width, *offsets)


def _layout(present: list[Field]) -> tuple[dict[str, int], int]:
    """Return each field's offset in its table, widest first so that little is padded, and the table's width."""
    slots, at = {}, 4
    for field in sorted(present, key=lambda f: -struct.calcsize(f.kind) if is_scalar(f) else -4):
        size = struct.calcsize(field.kind) if is_scalar(field) else 4
        at += -at % size
        slots[field.name] = at
        at += size
    return slots, at
