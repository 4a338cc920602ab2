# SPDX-License-Identifier: Apache-2.0
"""Block maps: which blocks of an image hold something, with the SHA-256 of each range; the rest need not be written.

Only who made the image knows which blocks are free. Blocks of zeros are not free ones: a file system may count on them.
So nothing is left out but by a map that came with the image. Format: version 2.0 of bmap-tools' documentation, XML.
"""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract.errors import ImageError

__all__ = ["BlockMap", "Range", "parse", "whole"]

_MOST_BYTES: Final = 50_000_000
_MOST_RANGES: Final = 2_000_000


@dataclass(frozen=True)
class Range:
    """Bytes [start, end) of an image, and their digest where the map names one."""

    start: int
    end: int
    sha256: str = ""


@dataclass(frozen=True)
class BlockMap:
    """The ranges that must be written, in order and apart from each other, of an image of so many bytes."""

    size: int
    ranges: tuple[Range, ...]

    @property
    def mapped(self) -> int:
        """Bytes that must be written."""
        return sum(one.end - one.start for one in self.ranges)


def whole(size: int) -> BlockMap:
    """Return the map of an image of which nothing is known: all of it.

    Example:
        >>> whole(4096).mapped
        4096
    """
    return BlockMap(size, (Range(0, size),) if size else ())


def parse(path: Path) -> BlockMap:
    """Return the block map of a file.

    Raises:
        ImageError: It is none, another version, damaged by its own digest, or its ranges overlap or lie outside.
    """
    where = str(path)
    try:
        data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=where) from error
    try:
        root = ET.fromstring(data)  # noqa: S314 - expat itself bounds what entities may become
    except ET.ParseError as error:
        raise ImageError(
            f"is no block map: {error}", where=where, fix="take the .bmap file of the same image"
        ) from error
    version = root.get("version", "")
    if root.tag != "bmap" or not version.startswith("2."):
        raise ImageError(f"is no block map of version 2: <{root.tag} version='{version[:20]}'>", where=where)
    _check_own_digest(data, _text(root, "BmapFileChecksum", where), where)
    size, block = (_number(root, key, where) for key in ("ImageSize", "BlockSize"))
    if _text(root, "ChecksumType", where) != "sha256" or not 512 <= block <= 1 << 26:
        raise ImageError("digests are not SHA-256, or blocks of no plausible size", where=where)
    return BlockMap(size, _ranges(root.findall("BlockMap/Range"), size, block, where))


def _ranges(found: Sequence[ET.Element], size: int, block: int, where: str) -> tuple[Range, ...]:
    if len(found) > _MOST_RANGES:
        raise ImageError(f"{len(found)} ranges", where=where)
    ranges, last = list[Range](), 0
    for one in found:
        words = re.fullmatch(r"\s*(\d{1,15})(?:-(\d{1,15}))?\s*", one.text or "")
        digest = one.get("chksum", "")
        if words is None or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ImageError(f"range {(one.text or '')[:40]!r} is malformed", where=where)
        start, end = int(words[1]) * block, min(size, (int(words[2] or words[1]) + 1) * block)
        if start < last or end <= start:
            raise ImageError(f"range {one.text} overlaps another or lies outside the image", where=where)
        ranges.append(Range(start, end, digest))
        last = end
    return tuple(ranges)


def _check_own_digest(data: bytes, named: str, where: str) -> None:
    """The map holds its own digest, made with zeros in its place."""
    zeroed = data.replace(named.encode(), b"0" * 64, 1)
    if len(named) != 64 or hashlib.sha256(zeroed).hexdigest() != named:
        raise ImageError("the block map is damaged: its own digest differs", where=where, fix="fetch it again")


def _text(root: ET.Element, key: str, where: str) -> str:
    found = root.findtext(key)
    if found is None:
        raise ImageError(f"has no {key}", where=where)
    return found.strip()


def _number(root: ET.Element, key: str, where: str) -> int:
    text = _text(root, key, where)
    if not re.fullmatch(r"\d{1,18}", text):
        raise ImageError(f"{key} = {text[:20]!r} is no number", where=where)
    return int(text)
