# SPDX-License-Identifier: Apache-2.0
"""Names on a FAT volume: the short one of 8 + 3 letters, and the long one in pieces of 13 before it.

fatgen103, "Short Directory Entries", "FAT Long Directory Entries" and the basis-name generation of its section
"Name Limits and Character Sets". Long names are UTF-16, at most 255 units; two names are the same if only the case
of their letters differs.
"""

import struct
from collections.abc import Collection
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["check_name", "checksum", "fold", "long_entries", "long_piece", "needs_long", "short_name", "short_text"]

LONG: Final = 0x0F
_MOST_UNITS: Final = 255
_PIECE: Final = 13
_FORBIDDEN: Final = frozenset('"*/:<>?\\|')
_SHORT: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
_DEVICES: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"COM{n}" for n in range(1, 10)), *(f"LPT{n}" for n in range(1, 10))]
)


def fold(name: str) -> str:
    """Return the form in which two names are compared: each letter in upper case, by itself.

    Example:
        >>> fold("Cmdline.txt") == fold("CMDLINE.TXT"), fold("straße")
        (True, 'STRAßE')
    """
    return "".join(big if len(big := letter.upper()) == 1 else letter for letter in name)


def check_name(name: str) -> None:
    """Refuse what no FAT volume can hold as the name of one file or directory.

    Raises:
        UsageError: Empty, too long, a forbidden letter, a dot or space at its end, a name of DOS' devices.

    Example:
        >>> check_name("user-data")
        >>> check_name("a:b")
        Traceback (most recent call last):
        edge_contract.errors.UsageError: 'a:b': no name for a file on a FAT volume; leave out ':'
    """
    wrong = sorted({letter for letter in name if letter in _FORBIDDEN or ord(letter) < 32 or ord(letter) == 127})
    if wrong:
        words = " and ".join(repr(letter) for letter in wrong)
        raise UsageError("no name for a file on a FAT volume", where=repr(name), fix=f"leave out {words}")
    units = len(name.encode("utf-16-le", "surrogatepass")) // 2
    if not 1 <= units <= _MOST_UNITS:
        fix = f"use 1 to {_MOST_UNITS} letters"
        raise UsageError(f"a name of {units} letters on a FAT volume", where=repr(name[:40]), fix=fix)
    if name[-1] in ". " or name.split(".", 1)[0].upper() in _DEVICES:
        fix = "end it with a letter, and do not call it as a device of DOS"
        raise UsageError("no name for a file on a FAT volume", where=repr(name), fix=fix)


def short_text(field: bytes, case: int = 0) -> str:
    """Return the text of an 11-byte short name; ``case`` is the byte in which Windows and Linux note lower case.

    Example:
        >>> short_text(b"CMDLINE TXT"), short_text(b"CMDLINE TXT", 0x18), short_text(b"OVERLAYS   ")
        ('CMDLINE.TXT', 'cmdline.txt', 'OVERLAYS')
    """
    first = b"\xe5" if field[:1] == b"\x05" else field[:1]  # 0xE5 itself marks a deleted entry
    base = (first + field[1:8]).decode("cp437").rstrip(" ")
    extension = field[8:11].decode("cp437").rstrip(" ")
    base = base.lower() if case & 0x08 else base
    extension = extension.lower() if case & 0x10 else extension
    return f"{base}.{extension}" if extension else base


def needs_long(name: str) -> bool:
    """Return whether a name is more than 8 + 3 capitals.

    Example:
        >>> needs_long("README.TXT"), needs_long("readme.txt"), needs_long("A.B.C")
        (False, True, True)
    """
    base, _, extension = name.partition(".")
    fits = 1 <= len(base) <= 8 and len(extension) <= 3 and not name.endswith(".")
    return not fits or not set(base) | set(extension) <= _SHORT


def _basis(name: str) -> tuple[str, str, bool]:
    """Return the capitals of a long name, 8 and 3 at most, and whether anything was lost."""
    plain = name.lstrip(". ")
    base, dot, extension = plain.rpartition(".")
    if not dot:
        base, extension = extension, ""
    cleaned = ["".join(c if c in _SHORT else "_" for c in fold(part) if c not in " .") for part in (base, extension)]
    same = fold(name) == (f"{cleaned[0]}.{cleaned[1]}" if dot else cleaned[0])
    lost = not same or len(cleaned[0]) > 8 or len(cleaned[1]) > 3
    return cleaned[0][:8] or "_", cleaned[1][:3], lost


def short_name(name: str, taken: Collection[bytes]) -> bytes:
    """Return the 11 bytes of a short name that nobody in the directory has.

    Args:
        name: The long name.
        taken: Short names of the directory, 11 bytes each.

    Example:
        >>> short_name("cmdline.txt", ()), short_name("network-config", ()), short_name("networking", {b"NETWOR~1   "})
        (b'CMDLINE TXT', b'NETWOR~1   ', b'NETWOR~2   ')
    """
    base, extension, lost = _basis(name)
    tail = extension.ljust(3).encode("ascii")
    plain = base.ljust(8).encode("ascii") + tail
    if not lost and plain not in taken:
        return plain
    for number in range(1, 1_000_000):
        suffix = f"~{number}"
        field = (base[: 8 - len(suffix)] + suffix).ljust(8).encode("ascii") + tail
        if field not in taken:
            return field
    raise UsageError("no short name is left in its directory", where=name)


def checksum(field: bytes) -> int:
    """Return the checksum by which long entries know their short one.

    Example:
        >>> checksum(b"NETWOR~1   ")
        71
    """
    total = 0
    for byte in field:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total


def long_entries(name: str, field: bytes) -> list[bytes]:
    """Return the entries of a long name as they stand before the short one: the last piece first."""
    units = name.encode("utf-16-le")
    count = -(-len(units) // (2 * _PIECE))
    room = count * 2 * _PIECE
    padded = (units + b"\0\0" if len(units) < room else units).ljust(room, b"\xff")
    total = checksum(field)
    found = []
    for number in range(count, 0, -1):
        piece = padded[(number - 1) * 26 : number * 26]
        order = number | (0x40 if number == count else 0)
        found.append(struct.pack("<B10sBBB12sH4s", order, piece[:10], LONG, 0, total, piece[10:22], 0, piece[22:]))
    return found


def long_piece(entry: bytes) -> tuple[int, int, bytes]:
    """Return order, checksum and the 26 bytes of one long entry."""
    order, first, _, _, total, second, _, third = struct.unpack("<B10sBBB12sH4s", entry)
    return order, total, first + second + third
