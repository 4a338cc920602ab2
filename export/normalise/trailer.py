# SPDX-License-Identifier: Apache-2.0
"""Files packed behind a model: TFLite's metadata tools append a zip archive with labels to the flatbuffer."""

import struct
from typing import Final

__all__ = ["archive_behind", "move"]

_END: Final = b"PK\5\6"
_ENTRY: Final = b"PK\1\2"
_LOCAL: Final = b"PK\3\4"
_END_SIZE: Final = 22  # without a comment
_ENTRY_SIZE: Final = 46


def archive_behind(data: bytes) -> bytes:
    """Return the zip archive at the end of a file with its offsets counted from its own start; empty if there is none.

    Only the directory is read, nothing is unpacked. What is not a plain archive counts as none.
    """
    if data[-_END_SIZE : -_END_SIZE + 4] != _END:
        return b""
    size, claimed = struct.unpack_from("<II", data, len(data) - _END_SIZE + 12)
    directory = len(data) - _END_SIZE - size
    offsets = _offsets(data, directory) if directory >= 0 and claimed <= directory else []
    shift = directory - claimed  # 0 where offsets count from the file's start
    start = min(offsets, default=-1) + shift
    if not offsets or any(data[at + shift : at + shift + 4] != _LOCAL for at in offsets):
        return b""
    return _shifted(data[start:], directory - start, shift - start)


def move(archive: bytes, size: int) -> bytes:
    """Return an archive from ``archive_behind`` with offsets that count from the start of a file of ``size`` bytes."""
    if not archive:
        return b""
    (directory_size,) = struct.unpack_from("<I", archive, len(archive) - _END_SIZE + 12)
    return _shifted(archive, len(archive) - _END_SIZE - directory_size, size)


def _places(data: bytes, directory: int) -> list[int]:
    """Where each entry of the directory lies; empty if it is broken."""
    found, at, end = [], directory, len(data) - _END_SIZE
    while at < end:
        if data[at : at + 4] != _ENTRY or at + _ENTRY_SIZE > end:
            return []
        found.append(at)
        at += _ENTRY_SIZE + sum(struct.unpack_from("<HHH", data, at + 28))
    return found if at == end else []


def _offsets(data: bytes, directory: int) -> list[int]:
    return [struct.unpack_from("<I", data, at + 42)[0] for at in _places(data, directory)]


def _shifted(archive: bytes, directory: int, by: int) -> bytes:
    out = bytearray(archive)
    for at in (*(place + 42 for place in _places(archive, directory)), len(archive) - _END_SIZE + 16):
        (offset,) = struct.unpack_from("<I", out, at)
        struct.pack_into("<I", out, at, offset + by)
    return bytes(out)
