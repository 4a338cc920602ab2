# SPDX-License-Identifier: Apache-2.0
"""Write a patch file: operations with their distances, each stream in its shortest zstd form."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import zstandard

from edge_agent.delta.container import MAX_FRAME_MEMORY, STREAM_WINDOW, Code, Header, Stream
from export.delta.coding import Step

__all__ = ["Frame", "Plan", "merged", "packed_frame", "packed_stream", "write", "written_operations"]

_LEVELS: Final = (3, 12, 19, 22)
_FRAME_LEVEL: Final = 19
_DICTIONARY: Final = zstandard.DICT_TYPE_RAWCONTENT


@dataclass(frozen=True)
class Frame:
    """One zstd frame of LITERALS: before which step it opens, its bytes, raw bytes, and its dictionary's ranges."""

    before: int
    data: bytes
    raw: int
    ranges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """A patch before it is packed: steps, the frames of LITERALS, and the chunks of the other streams."""

    steps: Sequence[Step]
    frames: Sequence[Frame]
    streams: Mapping[Stream, Sequence[bytes]] = field(default_factory=dict)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def merged(steps: Iterable[Step]) -> list[Step]:
    """Return steps with neighbouring copies and inserts made one."""
    out: list[Step] = []
    for step in steps:
        last = out[-1] if out else None
        follows = last is not None and last.code == step.code and last.offset + last.length == step.offset
        if last is not None and ((step.code == Code.COPY and follows) or step.code == last.code == Code.INSERT):
            out[-1] = Step(step.code, last.length + step.length, last.offset)
        else:
            out.append(step)
    return out


def written_operations(steps: Sequence[Step], frames: Sequence[Frame]) -> bytes:
    """Return the control stream; steps are written as they are, each after the frames that open before it."""
    out, place, waiting = bytearray(), 0, list(frames)

    def base_range(offset: int, length: int) -> bytes:
        nonlocal place
        distance, place = offset - place, offset + length
        return _number(_zigzag(distance)) + _number(length)

    for index, step in enumerate(steps):
        while waiting and waiting[0].before <= index:
            frame = waiting.pop(0)
            out += _number(Code.FRAME) + _number(len(frame.data)) + _number(frame.raw) + _number(len(frame.ranges))
            for offset, length in frame.ranges:
                out += base_range(offset, length)
        out += _number(step.code)
        out += _number(step.length) if step.code == Code.INSERT else base_range(step.offset, step.length)
        if step.code in (Code.ADD, Code.SPARSE):
            out += _number(step.extra)
    return bytes(out)


def packed_stream(chunks: Sequence[bytes]) -> bytes:
    """Return the shortest zstd form of a stream; a block may end where a chunk does, so that each has its own code."""
    data = b"".join(chunks)
    if not data:
        return b""
    found = []
    for level in _LEVELS:
        limit = min(STREAM_WINDOW.bit_length() - 1, max(10, len(data).bit_length()))
        settings = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=len(data), window_log=limit, write_content_size=False
        )
        compressor = zstandard.ZstdCompressor(compression_params=settings)
        found.append(compressor.compress(data))
        if 1 < len(chunks) < len(data) / 64:
            found.append(_in_blocks(compressor, chunks))
    return min(found, key=len)


def _in_blocks(compressor: zstandard.ZstdCompressor, chunks: Sequence[bytes]) -> bytes:
    writer, out = compressor.compressobj(), []
    for chunk in chunks:
        out += [writer.compress(chunk), writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*out, writer.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)])


def packed_frame(data: bytes, dictionary: bytes = b"") -> bytes:
    """Return one frame that leans on a raw dictionary, of a window that a device can hold beside it."""
    room = (MAX_FRAME_MEMORY - len(dictionary)).bit_length() - 1  # the window is a power of two, or all of the data
    span = max(10, (len(data) + len(dictionary)).bit_length())
    log = span if len(data) <= MAX_FRAME_MEMORY - len(dictionary) else min(span, room)
    settings = zstandard.ZstdCompressionParameters.from_level(
        _FRAME_LEVEL, source_size=len(data) + len(dictionary), window_log=log, enable_ldm=span > 22
    )
    held = zstandard.ZstdCompressionDict(dictionary, dict_type=_DICTIONARY) if dictionary else None
    return zstandard.ZstdCompressor(dict_data=held, compression_params=settings).compress(data)


def write(codec: str, base: bytes, target: bytes, plan: Plan) -> bytes:
    """Return a whole patch."""
    control = written_operations(plan.steps, plan.frames)
    packed = {stream: packed_stream(plan.streams.get(stream, ())) for stream in Stream}
    packed[Stream.CONTROL] = packed_stream([control])
    packed[Stream.LITERALS] = b"".join(frame.data for frame in plan.frames)
    raw = {stream: sum(map(len, plan.streams.get(stream, ()))) for stream in Stream}
    raw |= {Stream.CONTROL: len(control), Stream.LITERALS: sum(frame.raw for frame in plan.frames)}
    header = Header(
        codec,
        hashlib.sha256(base).hexdigest(),
        hashlib.sha256(target).hexdigest(),
        len(base),
        len(target),
        tuple((len(packed[stream]), raw[stream]) for stream in Stream),
    )
    return header.to_bytes() + b"".join(packed[stream] for stream in Stream)
