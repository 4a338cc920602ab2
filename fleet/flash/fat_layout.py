# SPDX-License-Identifier: Apache-2.0
"""Where things lie on a FAT volume: the BIOS parameter block of the boot sector.

Written from Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103, 2000), section "Boot Sector and BPB".
One difference: that text tells FAT16 from FAT32 by the number of clusters alone. Linux' vfat, mtools and the
firmware of small boards call a volume FAT32 if its 16-bit FAT size is 0, and so do we; ``mkfs.vfat -F 32`` on a
small partition makes such volumes, with fewer than 65 525 clusters.
"""

import struct
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.region import Region

__all__ = ["BOOT_SIGNATURE", "Layout", "is_fat", "read_layout"]

BOOT_SIGNATURE: Final = b"\x55\xaa"
ENTRY_BYTES: Final = 32
_FAT12_CLUSTERS: Final = 4085
_FAT16_CLUSTERS: Final = 65525
_FAT32_CLUSTERS: Final = 0x0FFFFFF5
_MOST_TABLE_BYTES: Final = 64 << 20  # a table is held in memory; boot partitions have less than 1 MB
_FIX: Final = "the image is damaged or of another kind: fetch it again"


@dataclass(frozen=True)
class Layout:
    """The geometry of one volume. Sizes are in bytes where a name ends with ``_bytes``, else counts.

    Attributes:
        bits: 16 or 32.
        sector_bytes, cluster_bytes: Unit of the table and unit of files.
        table_at, table_bytes, tables: The first copy of the allocation table, its length, the number of copies.
        active: The only copy in force, or -1 if all are written alike.
        root_at, root_entries: FAT16's root directory; 0 on FAT32.
        root_cluster: FAT32's root directory; 0 on FAT16.
        data_at: Byte of cluster 2.
        clusters: Number of data clusters; their numbers are 2 to ``clusters + 1``.
        info_at: Byte of the FSInfo sector, 0 if there is none.
        label: Volume label of the boot sector.
    """

    bits: int
    sector_bytes: int
    cluster_bytes: int
    table_at: int
    table_bytes: int
    tables: int
    active: int
    root_at: int
    root_entries: int
    root_cluster: int
    data_at: int
    clusters: int
    info_at: int
    label: str

    @property
    def kind(self) -> str:
        """Its name: FAT16 or FAT32."""
        return f"FAT{self.bits}"

    @property
    def state_at(self) -> int:
        """Byte of the boot sector in which Linux notes that the volume is in use."""
        return 0x41 if self.bits == 32 else 0x25

    def offset_of(self, cluster: int) -> int:
        """Return the first byte of a data cluster."""
        return self.data_at + (cluster - 2) * self.cluster_bytes


def is_fat(sector: bytes) -> bool:
    """Return whether a first sector looks like that of a FAT volume.

    Example:
        >>> is_fat(bytes(512))
        False
    """
    if len(sector) < 512 or sector[510:512] != BOOT_SIGNATURE or sector[0] not in {0xEB, 0xE9}:
        return False
    return sector[0x36:0x39] == b"FAT" or sector[0x52:0x57] == b"FAT32"


def _power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def _refuse(what: str, region: Region) -> ImageError:
    return ImageError(what, where=region.name, fix=_FIX)


@dataclass(frozen=True)
class _Fields:
    """The parameter block as it stands in the sector."""

    sector_bytes: int
    per_cluster: int
    reserved: int
    tables: int
    root_entries: int
    sectors: int
    table_sectors: int
    table16: int


def _fields(sector: bytes) -> _Fields:
    size, per_cluster, reserved, tables, root_entries, total16 = struct.unpack_from("<HBHBHH", sector, 11)
    (table16,) = struct.unpack_from("<H", sector, 22)
    total32, table32 = struct.unpack_from("<II", sector, 32)
    return _Fields(size, per_cluster, reserved, tables, root_entries, total16 or total32, table16 or table32, table16)


def _check(found: _Fields, region: Region) -> None:
    if found.sector_bytes not in {512, 1024, 2048, 4096}:
        raise _refuse(f"a FAT volume with sectors of {found.sector_bytes} bytes", region)
    if not _power_of_two(found.per_cluster) or found.per_cluster * found.sector_bytes > 1 << 18:
        raise _refuse(f"a FAT volume with {found.per_cluster} sectors in a cluster", region)
    if not found.reserved or found.tables not in {1, 2} or not found.table_sectors:
        raise _refuse("a FAT volume without reserved sectors or allocation tables", region)
    if found.sectors * found.sector_bytes > region.length:
        what = f"the FAT volume says that it has {found.sectors * found.sector_bytes} bytes, there are {region.length}"
        raise _refuse(what, region)
    if found.table_sectors * found.sector_bytes > _MOST_TABLE_BYTES:
        raise _refuse(f"an allocation table of {found.table_sectors} sectors, too large for a boot partition", region)


def _count(found: _Fields, root_bytes: int, region: Region) -> int:
    """Return the number of data clusters, which must fit in the table."""
    meta = found.reserved + found.tables * found.table_sectors + root_bytes // found.sector_bytes
    count = (found.sectors - meta) // found.per_cluster
    entry = 2 if found.table16 else 4
    if found.table16 and 0 < count < _FAT12_CLUSTERS:
        fix = "format the boot partition as FAT16 or FAT32"
        raise ImageError("a FAT12 volume, which no board boots from", where=region.name, fix=fix)
    if count < 1 or (count + 2) * entry > found.table_sectors * found.sector_bytes:
        raise _refuse(f"a FAT volume whose table does not fit its {max(count, 0)} clusters", region)
    if count >= (_FAT16_CLUSTERS if found.table16 else _FAT32_CLUSTERS):
        raise _refuse(f"a FAT volume with {count} clusters, more than its kind allows", region)
    return count


def read_layout(region: Region) -> Layout:
    """Return the geometry of a FAT volume.

    Raises:
        ImageError: No FAT16 or FAT32 volume, or one whose numbers contradict each other.
    """
    sector = region.read(0, min(512, region.length))
    if not is_fat(sector):
        raise ImageError("no FAT file system", where=region.name, fix="name an image whose boot partition is FAT")
    found = _fields(sector)
    _check(found, region)
    root_bytes = -(-found.root_entries * ENTRY_BYTES // found.sector_bytes) * found.sector_bytes
    wide = not found.table16
    if wide == bool(found.root_entries):
        raise _refuse("a FAT volume whose root directory is of neither kind", region)
    count = _count(found, root_bytes, region)
    flags, root_cluster, info = _wide_fields(sector, found, count, region) if wide else (0, 0, 0)
    table_at = found.reserved * found.sector_bytes
    table_bytes = found.table_sectors * found.sector_bytes
    root_at = table_at + found.tables * table_bytes
    return Layout(
        bits=32 if wide else 16,
        sector_bytes=found.sector_bytes,
        cluster_bytes=found.per_cluster * found.sector_bytes,
        table_at=table_at,
        table_bytes=table_bytes,
        tables=found.tables,
        active=flags & 0xF if flags & 0x80 else -1,
        root_at=0 if wide else root_at,
        root_entries=found.root_entries,
        root_cluster=root_cluster,
        data_at=root_at + root_bytes,
        clusters=count,
        info_at=info,
        label=sector[0x47:0x52].decode("cp437").rstrip() if wide else sector[0x2B:0x36].decode("cp437").rstrip(),
    )


def _wide_fields(sector: bytes, found: _Fields, count: int, region: Region) -> tuple[int, int, int]:
    flags, version, root_cluster, info = struct.unpack_from("<HHIH", sector, 40)
    if version:
        raise _refuse(f"a FAT32 volume of version {version >> 8}.{version & 255}", region)
    if flags & 0x80 and flags & 0xF >= found.tables:
        raise _refuse("a FAT32 volume whose active table does not exist", region)
    if not 2 <= root_cluster < count + 2:
        raise _refuse(f"a FAT32 volume whose root directory is at cluster {root_cluster} of {count}", region)
    info_at = info * found.sector_bytes if 0 < info < found.reserved else 0
    return flags, root_cluster, info_at
