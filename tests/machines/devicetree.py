# SPDX-License-Identifier: Apache-2.0
"""Flattened device trees: give a board a serial number, as its firmware does at each start.

Standard: Devicetree Specification 0.4, chapter 5.
"""

import struct

__all__ = ["with_property"]

MAGIC, BEGIN, PROPERTY = 0xD00DFEED, 1, 3
HEAD = struct.Struct(">10I")


def with_property(tree: bytes, name: str, value: bytes) -> bytes:
    """Return a tree whose root has one property more, before all others.

    Example:
        >>> root = struct.pack(">IIII", BEGIN, 0, 2, 9)
        >>> tree = HEAD.pack(MAGIC, 72, 56, 72, 40, 17, 16, 0, 0, 16) + bytes(16) + root
        >>> made = with_property(tree, "serial-number", b"1f")
        >>> made[76:80], made[-14:], len(made) == HEAD.unpack_from(made)[1]
        (b'1f\\x00\\x00', b'serial-number\\x00', True)
    """
    magic, _, at, names_at, reserved, *versions, _, words = HEAD.unpack_from(tree)
    if magic != MAGIC or tree[at : at + 8] != struct.pack(">II", BEGIN, 0):
        raise ValueError("not a device tree")
    names_bytes = HEAD.unpack_from(tree)[8]
    names = tree[names_at : names_at + names_bytes]
    one = struct.pack(">III", PROPERTY, len(value), len(names)) + value + bytes(-len(value) % 4)
    body = tree[at : at + 8] + one + tree[at + 8 : at + words]
    head_end = min(at, names_at)
    start = head_end + -head_end % 8
    names += name.encode() + b"\0"
    total = start + len(body) + len(names)
    head = HEAD.pack(MAGIC, total, start, start + len(body), reserved, *versions, len(names), len(body))
    return head + tree[HEAD.size : head_end].ljust(start - HEAD.size, b"\0") + body + names
