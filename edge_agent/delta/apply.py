# SPDX-License-Identifier: Apache-2.0
"""Carry out a patch: read the base and the patch side by side, write the result, believe only its SHA-256.

Memory does not grow with the files: at most ``MAX_CHUNK`` bytes are worked on at once, streams have windows of
``STREAM_WINDOW``, and a frame's dictionary and window share ``MAX_FRAME_MEMORY``. Needs zstandard, so it runs in
the helper process (``python -m edge_agent.delta``).
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from edge_agent.delta import lanes
from edge_agent.delta.container import (
    MAX_CHUNK,
    MAX_CONTROL_BYTES,
    MAX_FRAME_MEMORY,
    STREAM_WINDOW,
    Code,
    Header,
    Operation,
    Stream,
    malformed,
    operations,
)
from edge_contract.errors import BundleError, DeltaError

__all__ = ["Wanted", "apply", "digest_of"]

_BLOCK: Final = 1 << 16


@dataclass(frozen=True)
class Wanted:
    """What the caller knows from signed sources: the patch must say the same.

    Attributes:
        base, result: SHA-256 in hexadecimal.
        size: Bytes of the result.
    """

    base: str
    result: str
    size: int


def digest_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file, from its first byte."""
    file.seek(0)
    hasher = hashlib.sha256()
    while chunk := file.read(_BLOCK):
        hasher.update(chunk)
    return hasher.hexdigest()


def apply(base: Path, patch: Path, out: Path, wanted: Wanted) -> int:
    """Write the result of a patch to ``out``, fsynced, and return its size in bytes; the base is only read.

    Args:
        base: The file that the device holds.
        patch: The patch.
        out: A path that does not exist yet; after a failure it does not exist either.
        wanted: The hashes that are signed for both files.

    Raises:
        BundleError: The base has other bytes than the patch is for: the patch is not to blame.
        DeltaError: The patch is malformed, is for other files, or gives other bytes than it promises.
        OSError: The disk refuses.
    """
    with base.open("rb") as source, patch.open("rb") as packed:
        size = os.fstat(packed.fileno()).st_size
        header = Header.from_bytes(packed.read(Header.SIZE), size)
        if (header.base, header.result, header.result_size) != (wanted.base, wanted.result, wanted.size):
            raise malformed("it is for other files than it was offered for")
        if os.fstat(source.fileno()).st_size != header.base_size or digest_of(source) != header.base:
            raise BundleError("the base has other bytes than the patch is for", where=str(base))
        with out.open("xb") as sink:
            try:
                _write(_Patcher(source.fileno(), packed.fileno(), header), sink, header)
            except BaseException:
                out.unlink(missing_ok=True)
                raise
        return header.result_size


def _write(patcher: "_Patcher", sink: IO[bytes], header: Header) -> None:
    hasher = hashlib.sha256()

    def take(data: bytes) -> None:
        hasher.update(data)
        sink.write(data)

    try:
        patcher.run(take)
    except zstandard.ZstdError as error:
        raise malformed(str(error)) from error
    if hasher.hexdigest() != header.result:
        raise DeltaError("the result has other bytes than it promises", where="patch", fix="the full file is fetched")
    sink.flush()
    os.fsync(sink.fileno())


class _Slice:
    """The bytes of one stream or frame in the patch, as a file that zstandard reads."""

    def __init__(self, handle: int, start: int, size: int) -> None:
        self._handle, self._at, self._end = handle, start, start + size

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        left = self._end - self._at
        data = os.pread(self._handle, min(left, _BLOCK if size < 0 else size), self._at)
        self._at += len(data)
        return data


class _Patcher:
    """Takes the operations of one patch in order.

    Args:
        base, patch: File descriptors.
        header: Of the patch.
    """

    def __init__(self, base: int, patch: int, header: Header) -> None:
        self._base, self._patch, self._header = base, patch, header
        self._streams: dict[Stream, Any] = {
            stream: _reader(_Slice(patch, header.start(stream), header.streams[stream][0]), STREAM_WINDOW)
            for stream in Stream
            if stream != Stream.LITERALS
        }
        self._frame: Any = None
        self._frame_at = header.start(Stream.LITERALS)
        self._frame_left = header.streams[Stream.LITERALS][0]
        self._makers: dict[Code, Callable[[Operation, Callable[[bytes], None]], None]] = {
            Code.COPY: self._copy,
            Code.INSERT: self._insert,
            Code.ADD: self._add,
            Code.SPARSE: self._sparse,
            Code.FRAME: self._open_frame,
        }

    def run(self, take: Callable[[bytes], None]) -> None:
        """Hand the result's bytes over, piece by piece."""
        header = self._header
        control = self._read(Stream.CONTROL, min(header.streams[Stream.CONTROL][1], MAX_CONTROL_BYTES))
        for step in operations(control, header.base_size, header.result_size):
            self._makers[step.code](step, take)

    def _read(self, stream: Stream, size: int) -> bytes:
        return _exactly(self._streams[stream], size)

    def _of_base(self, offset: int, size: int) -> bytes:
        data = os.pread(self._base, size, offset)
        if len(data) != size:
            raise BundleError(f"the base ends before byte {offset + size}", where="base")
        return data

    def _copy(self, step: Operation, take: Callable[[bytes], None]) -> None:
        for offset in range(step.offset, step.offset + step.length, MAX_CHUNK):
            take(self._of_base(offset, min(MAX_CHUNK, step.offset + step.length - offset)))

    def _insert(self, step: Operation, take: Callable[[bytes], None]) -> None:
        if self._frame is None:
            raise malformed("new bytes without a frame")
        left = step.length
        while left:
            take(_exactly(self._frame, min(left, MAX_CHUNK)))
            left -= min(left, MAX_CHUNK)

    def _add(self, step: Operation, take: Callable[[bytes], None]) -> None:
        base, width = self._of_base(step.offset, step.length), step.extra
        if width == 1:
            difference = self._read(Stream.DIFFS, step.length)
        else:
            difference = lanes.from_planes(self._read(Stream.PLANES, step.length), width)
        take(lanes.add(base, difference, width))

    def _sparse(self, step: Operation, take: Callable[[bytes], None]) -> None:
        data = bytearray(self._of_base(step.offset, step.length))
        gaps = self._read(Stream.GAPS, step.extra)
        values = iter(self._read(Stream.VALUES, len(gaps) - gaps.count(255)))
        place = 0
        for gap in gaps:
            place += gap
            if gap == 255:
                continue
            if place >= len(data):
                raise malformed("a change lies behind its operation")
            data[place] = (data[place] + next(values)) & 255
            place += 1
        take(bytes(data))

    def _open_frame(self, step: Operation, _take: Callable[[bytes], None]) -> None:
        if step.extra > self._frame_left:
            raise malformed("a frame reaches past its stream")
        self._frame = None  # the memory of the frame before it, back to the system
        held = sum(size for _, size in step.ranges)
        dictionary = self._dictionary(step, held) if held else None
        source = _Slice(self._patch, self._frame_at, step.extra)
        self._frame = _reader(source, MAX_FRAME_MEMORY - held, dictionary)
        self._frame_at += step.extra
        self._frame_left -= step.extra

    def _dictionary(self, step: Operation, held: int) -> zstandard.ZstdCompressionDict:
        data, at = bytearray(held), 0
        view = memoryview(data)
        for offset, size in step.ranges:
            if os.preadv(self._base, [view[at : at + size]], offset) != size:
                raise BundleError(f"the base ends before byte {offset + size}", where="base")
            at += size
        return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _reader(source: Any, window: int, dictionary: zstandard.ZstdCompressionDict | None = None) -> Any:
    """Return the bytes after decompression as a file; a stream may be several frames.

    Each reader has its own context: two that share one would read each other's state.
    """
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=window)
    return decompressor.stream_reader(source, read_across_frames=True)


def _exactly(reader: Any, size: int) -> bytes:
    """Return ``size`` bytes of a stream.

    Raises:
        DeltaError: It ends before.
    """
    parts, left = [], size
    while left:
        data = reader.read(left)
        if not data:
            raise malformed(f"a stream ends {left} bytes early")
        parts.append(data)
        left -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)
