# SPDX-License-Identifier: Apache-2.0
"""Looking into the ext4 root of an image: is a file there, what does it say. Reading only, without root or mount.

Layout: "ext4 Data Structures and Algorithms" of the kernel's documentation (Documentation/filesystems/ext4). Read are
extents and the older block maps, 64-bit block numbers, symbolic links; a directory is read block by block, which the
hashed index of large ones allows on purpose. Checksums are not looked at.
"""

import struct
from collections.abc import Iterator
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.region import Region

__all__ = ["Ext4"]

_ROOT: Final = 2
_DIRECTORY, _FILE, _LINK = 0x4000, 0x8000, 0xA000
_EXTENTS: Final = 0x80000
_HAS_64BIT: Final = 0x80
_RECOVER: Final = 0x04
_UNKNOWN: Final = 0x10 | 0x8000 | 0x20000  # META_BG, INLINE_DATA, CASEFOLD
_MOST_DEPTH: Final = 6
_MOST_LINKS: Final = 8
_MOST_NODES: Final = 4096
_MOST_BYTES: Final = 16 << 20


class Ext4:
    """An ext2, ext3 or ext4 file system in a region.

    Attributes:
        region: The partition.
        free_bytes: What its superblock says is free.
        is_dirty: Whether its journal holds changes that were not carried out.

    Raises:
        ImageError: No such file system, or one that this reader does not know.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        block = region.read(1024, 1024)
        if block[56:58] != b"\x53\xef":
            raise self._bad("no ext4 file system")
        _, _, _, free, _, first, log = struct.unpack_from("<7I", block)
        self._per_group, inodes = struct.unpack_from("<I", block, 40)[0], struct.unpack_from("<I", block, 0)[0]
        (features,) = struct.unpack_from("<I", block, 96)
        self._size = 1024 << log if log <= 6 else 0
        self._inode_size = struct.unpack_from("<H", block, 88)[0] or 128
        self._width = struct.unpack_from("<H", block, 254)[0] if features & _HAS_64BIT else 32
        if not self._size or features & _UNKNOWN or not self._per_group or self._inode_size < 128 or self._width < 32:
            raise self._bad("an ext4 file system of a layout that is not known here")
        self._groups_at = (first + 1) * self._size
        self._inodes = inodes
        self.free_bytes = free * self._size
        self.is_dirty = bool(features & _RECOVER)

    def _bad(self, what: str) -> ImageError:
        return ImageError(what, where=self.region.name)

    def exists(self, path: str) -> bool:
        """Return whether a path leads to something; links are followed."""
        return self._find(path) is not None

    def link(self, path: str) -> str:
        """Return where a symbolic link points; empty if the path is none."""
        found = self._find(path, follow=False)
        if found is None or self._kind(found) != _LINK:
            return ""
        return self._target(found)

    def read(self, path: str, most: int = 1 << 20) -> bytes | None:
        """Return a file's first bytes; None if there is none."""
        found = self._find(path)
        if found is None or self._kind(found) != _FILE:
            return None
        return self._data(found, most)

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes, block by block, so that a large one needs little memory.

        Raises:
            ImageError: There is no such file, or it is damaged.
        """
        found = self._find(path)
        if found is None or self._kind(found) != _FILE:
            raise ImageError("no such file", where=f"{self.region.name}:{path}")
        length = self._length(found)
        if length > self.region.length:
            raise self._bad(f"'{path}' says that it has {length} bytes")
        yield from self._parts(found, length)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory; none if there is no such one."""
        found = self._find(path)
        if found is None or self._kind(found) != _DIRECTORY:
            return []
        return [name for name, _ in self._entries(found)]

    def _find(self, path: str, *, follow: bool = True) -> bytes | None:
        """Return the inode of a path, its links followed."""
        parts, stack, links = [p for p in path.split("/") if p], [self._inode(_ROOT)], 0
        while parts:
            name = parts.pop(0)
            if name == "..":
                stack = stack[:-1] or stack
                continue
            found = self._child(stack[-1], name)
            if found is None:
                return None
            if self._kind(found) == _LINK and (parts or follow):
                links += 1
                if links > _MOST_LINKS:
                    return None
                target = self._target(found)
                stack = stack[:1] if target.startswith("/") else stack
                parts = [p for p in target.split("/") if p and p != "."] + parts
                continue
            stack.append(found)
        return stack[-1]

    def _child(self, inode: bytes, name: str) -> bytes | None:
        if self._kind(inode) != _DIRECTORY:
            return None
        number = next((at for found, at in self._entries(inode) if found == name), 0)
        return self._inode(number) if number else None

    @staticmethod
    def _kind(inode: bytes) -> int:
        return int.from_bytes(inode[:2], "little") & 0xF000

    def _inode(self, number: int) -> bytes:
        if not 1 <= number <= self._inodes:
            raise self._bad(f"its inode {number} does not exist")
        group, place = divmod(number - 1, self._per_group)
        descriptor = self.region.read(self._groups_at + group * self._width, self._width)
        table = int.from_bytes(descriptor[8:12], "little")
        if self._width >= 64:
            table |= int.from_bytes(descriptor[40:44], "little") << 32
        return self.region.read(table * self._size + place * self._inode_size, self._inode_size)

    @staticmethod
    def _length(inode: bytes) -> int:
        low, high = struct.unpack_from("<I", inode, 4)[0], struct.unpack_from("<I", inode, 108)[0]
        return int(low | high << 32)

    def _target(self, inode: bytes) -> str:
        length = self._length(inode)
        raw = inode[40 : 40 + length] if length < 60 else self._data(inode, 4096)
        return raw.decode("utf-8", "replace")

    def _data(self, inode: bytes, most: int) -> bytes:
        return b"".join(self._parts(inode, min(self._length(inode), most, _MOST_BYTES)))

    def _parts(self, inode: bytes, length: int) -> Iterator[bytes]:
        """Yield the first bytes of a file, block by block; holes are zeros."""
        (flags,) = struct.unpack_from("<I", inode, 32)
        wanted = -(-length // self._size)
        found = self._extents(inode[40:100], [_MOST_NODES]) if flags & _EXTENTS else self._map(inode, wanted)
        blocks = {place: block for place, block in found if place < wanted and block}
        for number in range(wanted):
            data = self._block(blocks[number]) if number in blocks else bytes(self._size)
            yield data[: length - number * self._size]

    def _block(self, number: int) -> bytes:
        return self.region.read(number * self._size, self._size)

    def _extents(self, node: bytes, budget: list[int], depth: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (place in the file, block) of an extent tree; ``budget`` counts down its nodes, so that it ends."""
        budget[0] -= 1
        magic, count, _, level = struct.unpack_from("<4H", node)
        if magic != 0xF30A or depth > _MOST_DEPTH or budget[0] < 0 or 12 + 12 * count > len(node):
            raise self._bad("an extent tree is damaged")
        for n in range(count):
            at = 12 + 12 * n
            if level:
                low, high = struct.unpack_from("<4xIH", node, at)
                yield from self._extents(self._block(high << 32 | low), budget, depth + 1)
            else:
                place, length, high, low = struct.unpack_from("<IHHI", node, at)
                used = length if length <= 0x8000 else 0  # longer ones are promised and not written
                yield from ((place + k, (high << 32 | low) + k) for k in range(used))

    def _map(self, inode: bytes, wanted: int) -> Iterator[tuple[int, int]]:
        """Yield (place, block) of an older inode: 12 direct blocks, and one of indirect ones."""
        direct = struct.unpack_from("<13I", inode, 40)
        yield from enumerate(direct[:12])
        if wanted > 12 and direct[12]:
            yield from enumerate(struct.unpack(f"<{self._size // 4}I", self._block(direct[12])), start=12)

    def _entries(self, inode: bytes) -> Iterator[tuple[str, int]]:
        data, at = self._data(inode, _MOST_BYTES), 0
        while at + 8 <= len(data):
            number, length, size = struct.unpack_from("<IHB", data, at)
            if length < 8 or at + length > len(data):
                raise self._bad("a directory is damaged")
            if number and size:
                yield data[at + 8 : at + 8 + size].decode("utf-8", "replace"), number
            at += length
