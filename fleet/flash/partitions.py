# SPDX-License-Identifier: Apache-2.0
"""The partitions of an image or a card: MBR with its logical drives, and GPT with its checksums and backup.

MBR: the table at byte 446 of the first sector; GPT: UEFI Specification 2.10, section 5.3.
"""

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Final

from edge_contract.errors import ImageError
from fleet.flash.fat_layout import BOOT_SIGNATURE, is_fat
from fleet.flash.region import Region, size_of

__all__ = ["Partition", "PartitionTable", "boot_of", "read_table", "root_of"]

_SECTOR: Final = 512
_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_FAT_KINDS: Final = frozenset({0x04, 0x06, 0x0B, 0x0C, 0x0E, 0xEF})
_LINUX: Final = 0x83
_GPT_FAT: Final = frozenset(
    {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"},
)
_EXT_MAGIC_AT: Final = 1024 + 56
_MOST_PARTITIONS: Final = 128
_FIX: Final = "the image is damaged or cut short: fetch it again"


@dataclass(frozen=True)
class Partition:
    """One partition.

    Attributes:
        number: From 1, as the kernel counts.
        start, length: In bytes.
        kind: MBR's type as ``0x0c``, or GPT's type as a UUID.
        label: GPT's name; empty on MBR.
        content: ``fat``, ``ext``, or empty where nothing of these was seen.
    """

    number: int
    start: int
    length: int
    kind: str
    label: str
    content: str


@dataclass(frozen=True)
class PartitionTable:
    """The table of an image.

    Attributes:
        scheme: ``mbr`` or ``gpt``.
        identity: The disk's id, as in PARTUUID: eight hexadecimal digits, or a UUID.
        partitions: In the order of their numbers.
        remarks: What is odd and does no harm, such as a backup table that is not at the end.
    """

    scheme: str
    identity: str
    partitions: tuple[Partition, ...]
    remarks: tuple[str, ...] = ()


def _content(file: BinaryIO, start: int, length: int) -> str:
    if length < 4096:
        return ""
    file.seek(start)
    head = file.read(2048)
    if is_fat(head[:512]):
        return "fat"
    return "ext" if head[_EXT_MAGIC_AT : _EXT_MAGIC_AT + 2] == b"\x53\xef" else ""


def _sector(file: BinaryIO, number: int, name: str) -> bytes:
    file.seek(number * _SECTOR)
    data = file.read(_SECTOR)
    if len(data) < _SECTOR:
        raise ImageError(f"ends before sector {number}", where=name, fix=_FIX)
    return data


def _made(file: BinaryIO, name: str, number: int, place: tuple[int, int], *, kind: str, label: str = "") -> Partition:
    start, length = place[0] * _SECTOR, place[1] * _SECTOR
    size = size_of(file)
    if start + length > size:
        what = f"partition {number} ends at byte {start + length}, the image has {size}"
        raise ImageError(what, where=name, fix="the image is cut short: fetch it again")
    return Partition(number, start, length, kind, label, _content(file, start, length))


def _entries(sector: bytes) -> list[tuple[int, int, int]]:
    """Return (type, first sector, sectors) of the four entries of an MBR or an extended boot record."""
    found = []
    for place in range(446, 510, 16):
        kind = sector[place + 4]
        first, count = struct.unpack_from("<II", sector, place + 8)
        found.append((kind, first, count))
    return found


def _logical(file: BinaryIO, base: int, name: str) -> list[tuple[int, int, int]]:
    """Return the logical drives of an extended partition; its records form a chain, which must end."""
    found: list[tuple[int, int, int]] = []
    at, seen = base, set()
    while at not in seen and len(found) < _MOST_PARTITIONS:
        seen.add(at)
        sector = _sector(file, at, name)
        if sector[510:] != BOOT_SIGNATURE:
            break
        here, after, *_ = _entries(sector)
        if here[2]:
            found.append((here[0], at + here[1], here[2]))
        if after[0] not in _EXTENDED or not after[2]:
            return found
        at = base + after[1]
    raise ImageError("its chain of logical drives is broken", where=name, fix=_FIX)


def _mbr(file: BinaryIO, sector: bytes, name: str) -> PartitionTable:
    partitions: list[Partition] = []
    logical: list[tuple[int, int, int]] = []
    for number, (kind, first, count) in enumerate(_entries(sector), start=1):
        if kind in _EXTENDED and count:
            logical += _logical(file, first, name)
        elif kind and count:
            partitions.append(_made(file, name, number, (first, count), kind=f"0x{kind:02x}"))
    for number, (kind, first, count) in enumerate(logical, start=5):
        partitions.append(_made(file, name, number, (first, count), kind=f"0x{kind:02x}"))
    (identity,) = struct.unpack_from("<I", sector, 440)
    return PartitionTable("mbr", f"{identity:08x}", tuple(partitions))


def _gpt_entries(file: BinaryIO, at: int, name: str) -> tuple[str, list[tuple[str, int, int, str]]]:
    """Return disk id and entries of the GPT whose header is in a sector.

    Raises:
        ImageError: No GPT, or a checksum is wrong.
    """
    header = _sector(file, at, name)
    signature, _, size, crc = struct.unpack_from("<8sIII", header)
    if signature != b"EFI PART" or not 92 <= size <= _SECTOR:
        raise ImageError("no GPT header", where=name, fix=_FIX)
    if zlib.crc32(header[:16] + b"\0\0\0\0" + header[20:size]) != crc:
        raise ImageError("the checksum of its GPT header is wrong", where=name, fix=_FIX)
    disk = uuid.UUID(bytes_le=header[56:72])
    table_at, count, width, table_crc = struct.unpack_from("<QIII", header, 72)
    if not 128 <= width <= 4096 or count > 4 * _MOST_PARTITIONS:
        raise ImageError(f"a GPT of {count} entries of {width} bytes", where=name, fix=_FIX)
    table = Region(file, 0, size_of(file), name).read(table_at * _SECTOR, count * width)
    if zlib.crc32(table) != table_crc:
        raise ImageError("the checksum of its GPT entries is wrong", where=name, fix=_FIX)
    return str(disk), [_gpt_entry(table[n * width : (n + 1) * width]) for n in range(count)]


def _gpt_entry(raw: bytes) -> tuple[str, int, int, str]:
    first, last = struct.unpack_from("<QQ", raw, 32)
    label = raw[56:128].decode("utf-16-le", "replace").split("\0", 1)[0]
    kind = uuid.UUID(bytes_le=raw[:16])
    return ("" if not kind.int else str(kind)), first, last - first + 1, label


def _gpt(file: BinaryIO, name: str) -> PartitionTable:
    last = size_of(file) // _SECTOR - 1
    remarks: list[str] = []
    try:
        disk, entries = _gpt_entries(file, 1, name)
        try:
            _gpt_entries(file, last, name)
        except ImageError:
            remarks.append("the backup of its GPT is not at the end; the first boot usually moves it there")
    except ImageError as first:
        try:
            disk, entries = _gpt_entries(file, last, name)
        except ImageError:
            raise first from None
        remarks.append(f"{first.what}; its backup at the end is whole and was read")
    partitions = [
        _made(file, name, number, (at, count), kind=kind, label=label)
        for number, (kind, at, count, label) in enumerate(entries, start=1)
        if kind and count > 0
    ]
    return PartitionTable("gpt", disk, tuple(partitions), tuple(remarks))


def read_table(file: BinaryIO, name: str = "image") -> PartitionTable:
    """Return the partition table of an image or a card.

    Args:
        file: Opened for reading.
        name: What an error calls it.

    Raises:
        ImageError: No table, a bare file system, a wrong checksum, or partitions that end behind the image.
    """
    sector = _sector(file, 0, name)
    if is_fat(sector) or sector[510:] != BOOT_SIGNATURE:
        raise ImageError(_without(file, sector), where=name, fix="name the image of a whole card")
    if any(kind == 0xEE for kind, _, _ in _entries(sector)):
        return _gpt(file, name)
    table = _mbr(file, sector, name)
    if not table.partitions:
        raise ImageError("a partition table without partitions", where=name, fix="name the image of a whole card")
    return table


def _without(file: BinaryIO, sector: bytes) -> str:
    if is_fat(sector):
        return "one FAT file system and no partition table: no board boots from that"
    if _content(file, 0, size_of(file)) == "ext":
        return "one ext4 file system and no partition table"
    return "not an image of a card: there is no partition table"


def boot_of(table: PartitionTable, file: BinaryIO, name: str = "image") -> tuple[Partition, Region]:
    """Return the boot partition: the first one that holds a FAT file system and is marked as one.

    Raises:
        ImageError: There is none.
    """
    marked = [p for p in table.partitions if p.content == "fat" and _is_marked(p)]
    others = [p for p in table.partitions if p.content == "fat"]
    if not others:
        kinds = ", ".join(f"{p.number} ({p.kind})" for p in table.partitions)
        raise ImageError(f"no FAT partition to boot from; there are {kinds}", where=name, fix="name another image")
    found = (marked or others)[0]
    return found, Region(file, found.start, found.length, f"{name} partition {found.number}")


def _is_marked(partition: Partition) -> bool:
    kind = partition.kind
    return kind in _GPT_FAT or (kind.startswith("0x") and int(kind, 16) in _FAT_KINDS)


def root_of(table: PartitionTable) -> Partition | None:
    """Return the largest partition that holds an ext file system; None if there is none."""
    found = [p for p in table.partitions if p.content == "ext"]
    return max(found, key=lambda p: p.length, default=None)
