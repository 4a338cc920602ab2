# SPDX-License-Identifier: Apache-2.0
"""Ways to write one piece of the target, and which of them is the shortest after zstd.

=========  =================================================================================================
copy       the base has the same bytes
dense      a difference for each element: bytes as they are, wider elements as zigzag numbers in byte planes
sparse     places and differences of the bytes that changed: best below some 40 % of changes
full       the new bytes
=========  =================================================================================================

A Huffman code, which is what zstd uses for such numbers, spends at least one bit on each symbol. That is why sparse
changes get a form of their own: a dense difference with 10 % of ±1 holds 0.57 bits per byte, and would cost one.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from edge_agent.delta.container import MAX_CHUNK, Code, Stream
from export.delta.pairing import Piece

__all__ = ["Coded", "Step", "best", "planes", "sparse", "squeezed"]

Bytes = NDArray[np.uint8]
_ESTIMATE_LEVEL: Final = 12
_OPERATION_COST: Final = 4


@dataclass(frozen=True)
class Step:
    """One operation before its distance is known: code, bytes of the result, offset in the base, extra number."""

    code: Code
    length: int
    offset: int = 0
    extra: int = 0


@dataclass(frozen=True)
class Coded:
    """One piece, written in one way.

    Attributes:
        kind: ``copy``, ``dense``, ``sparse`` or ``full``.
        cost: Bytes after zstd, alone.
        steps: Its operations.
        data: What it adds to each stream.
    """

    kind: str
    cost: int
    steps: tuple[Step, ...]
    data: dict[Stream, bytes] = field(default_factory=dict)


def squeezed(data: bytes) -> int:
    """Return about how many bytes zstd makes of this."""
    return len(zstandard.ZstdCompressor(level=_ESTIMATE_LEVEL).compress(data)) if data else 0


def planes(base: bytes, target: bytes, width: int) -> bytes:
    r"""Return target - base of each little-endian element as zigzag numbers in byte planes, lowest first.

    Example:
        >>> planes(b"\x05\x00\x05\x00", b"\x04\x00\x06\x00", 2)
        b'\x01\x02\x00\x00'
    """
    kind = np.dtype(f"<i{width}")
    with np.errstate(over="ignore"):
        difference: NDArray[Any] = np.frombuffer(target, kind) - np.frombuffer(base, kind)
    mixed = (difference << 1) ^ (difference >> (8 * width - 1))
    return np.ascontiguousarray(mixed.astype(kind).view(np.uint8).reshape(-1, width).T).tobytes()


def sparse(base: bytes, target: bytes) -> tuple[bytes, bytes]:
    r"""Return the gaps before the changed bytes, and their differences modulo 256.

    Example:
        >>> sparse(bytes(600), bytes(2) + b"\x01" + bytes(297) + b"\xff" + bytes(299))
        (b'\x02\xff*', b'\x01\xff')
    """
    difference = np.frombuffer(target, np.uint8) - np.frombuffer(base, np.uint8)
    places = np.flatnonzero(difference)
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(gaps // 255 + 1)
    written = np.full(ends[-1] if len(ends) else 0, 255, np.uint8)
    written[ends - 1] = gaps % 255
    return written.tobytes(), difference[places].tobytes()


def _chunks(length: int) -> list[tuple[int, int]]:
    return [(at, min(MAX_CHUNK, length - at)) for at in range(0, length, MAX_CHUNK)]


def _dense(base: bytes, target: bytes, offset: int, width: int) -> Coded:
    steps, written = [], []
    for at, size in _chunks(len(target)):
        steps.append(Step(Code.ADD, size, offset + at, width.bit_length() - 1))
        first, second = base[at : at + size], target[at : at + size]
        if width == 1:
            written.append((np.frombuffer(second, np.uint8) - np.frombuffer(first, np.uint8)).tobytes())
        else:
            written.append(planes(first, second, width))
    data = b"".join(written)
    stream = Stream.DIFFS if width == 1 else Stream.PLANES
    return Coded("dense", squeezed(data) + _OPERATION_COST, tuple(steps), {stream: data})


def _sparse(base: bytes, target: bytes, offset: int) -> Coded:
    steps, gaps, values = [], [], []
    for at, size in _chunks(len(target)):
        places, changes = sparse(base[at : at + size], target[at : at + size])
        code = Step(Code.SPARSE, size, offset + at, len(places)) if changes else Step(Code.COPY, size, offset + at)
        steps.append(code)
        gaps.append(places)
        values.append(changes)
    data = {Stream.GAPS: b"".join(gaps), Stream.VALUES: b"".join(values)}
    return Coded("sparse", sum(map(squeezed, data.values())) + _OPERATION_COST, tuple(steps), data)


def best(base: bytes, target: bytes, piece: Piece) -> Coded:
    """Return the shortest way to write a piece."""
    wanted = target[piece.offset : piece.offset + piece.length]
    found = []
    for offset in piece.bases:
        held = base[offset : offset + piece.length]
        if held == wanted:
            return Coded("copy", 0, (Step(Code.COPY, piece.length, offset),))
        found += [_sparse(held, wanted, offset), _dense(held, wanted, offset, piece.width)]
    full = Coded("full", squeezed(wanted) + 1, (Step(Code.INSERT, piece.length),), {Stream.LITERALS: wanted})
    return min([*found, full], key=lambda way: way.cost)
