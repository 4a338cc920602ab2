# SPDX-License-Identifier: Apache-2.0
"""Make the smallest patch from one file to another: tensor by tensor, with zstd on the base, or without any base.

=============  =======================================================================================
tensors        differences of matching tensors (``coding``); all else as new bytes beside the base's
zstd-prefix    the target after zstd with the base as dictionary ("patch from")
zstd           the target after zstd: needs no base, and is what the others are judged by
=============  =======================================================================================
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from edge_agent.delta.container import MAX_FRAME_MEMORY, MAX_RANGES, Code, Header, Stream
from edge_contract.errors import DeltaError, UsageError
from export.delta.coding import Coded, Step, best
from export.delta.container import Frame, Plan, merged, packed_frame, write, written_operations
from export.delta.pairing import Piece, pieces

__all__ = ["MAX_INPUT_BYTES", "WORTH", "Patch", "Row", "make", "with_prefix", "with_tensors", "without_base"]

MAX_INPUT_BYTES: Final = 400_000_000
"""Of base or target: making a patch holds both in memory, several times."""
WORTH: Final = 0.7
"""A patch larger than this share of the file after zstd is not made, and one larger than this share of the file itself
is not offered: the full file is as good."""
_MAX_DICTIONARY: Final = 8 << 20
_HOLE: Final = 32  # a range of the base costs a few bytes; shorter holes between two are taken along
_FRAME_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class Row:
    """What one tensor costs in a patch: how it is written, its bytes, and about how many of the patch are its own."""

    name: str
    kind: str
    width: int
    bytes: int
    cost: int


@dataclass(frozen=True)
class Patch:
    """One patch.

    Attributes:
        codec: ``tensors``, ``zstd-prefix`` or ``zstd``.
        data: The file.
        base, result: SHA-256 in hexadecimal.
        full: Bytes of the target.
        full_zstd: Bytes of the target in the codec ``zstd``.
        rows: What each tensor costs; of ``tensors`` only.
        others: Codec → bytes of the ones that were larger.
    """

    codec: str
    data: bytes
    base: str
    result: str
    full: int
    full_zstd: int
    rows: tuple[Row, ...]
    others: dict[str, int]

    @property
    def is_worth_it(self) -> bool:
        """Whether devices should be given it; else the full file is as good."""
        return len(self.data) <= WORTH * self.full

    def to_json(self) -> dict[str, Any]:
        """Return all but the bytes."""
        rows = [{"name": r.name, "kind": r.kind, "width": r.width, "bytes": r.bytes, "cost": r.cost} for r in self.rows]
        return {
            "codec": self.codec,
            "bytes": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "base": self.base,
            "result": self.result,
            "full": self.full,
            "full_zstd": self.full_zstd,
            "worth_it": self.is_worth_it,
            "others": self.others,
            "tensors": rows,
        }


def without_base(target: bytes) -> bytes:
    """Return the target after zstd, as a patch on an empty file."""
    return _of_frames("zstd", b"", target)


def with_prefix(base: bytes, target: bytes) -> bytes:
    """Return the target after zstd with the base, or the part of it at the same height, as dictionary."""
    return _of_frames("zstd-prefix", base, target)


def _of_frames(codec: str, base: bytes, target: bytes) -> bytes:
    held = min(len(base), MAX_FRAME_MEMORY // 2)
    size = MAX_FRAME_MEMORY - held if held == len(base) else _FRAME_BYTES
    steps: list[Step] = []
    frames: list[Frame] = []
    for at in range(0, len(target), size):
        part = target[at : at + size]
        middle = (at + len(part) // 2) * len(base) // len(target)
        start = max(0, min(len(base) - held, middle - held // 2))
        ranges = ((start, held),) if held else ()
        frames.append(Frame(len(steps), packed_frame(part, base[start : start + held]), len(part), ranges))
        steps.append(Step(Code.INSERT, len(part)))
    return write(codec, base, target, Plan(steps, frames))


def with_tensors(base: bytes, target: bytes) -> tuple[bytes, tuple[Row, ...]]:
    """Return a patch by tensors, and what each of them costs."""
    asked = pieces(base, target)
    coded = [best(base, target, piece) for piece in asked]
    steps = merged(step for way in coded for step in way.steps)
    new = b"".join(way.data.get(Stream.LITERALS, b"") for way in coded)
    frames = _frames(base, new, steps)
    streams: dict[Stream, list[bytes]] = {
        stream: [way.data[stream] for way in coded if way.data.get(stream)]
        for stream in Stream
        if stream not in (Stream.CONTROL, Stream.LITERALS)
    }
    return write("tensors", base, target, Plan(steps, frames, streams)), tuple(_rows(asked, coded))


def _frames(base: bytes, new: bytes, steps: Iterable[Step]) -> list[Frame]:
    """Return the frame of new bytes: with the base's unused bytes as dictionary, or without, as is shorter."""
    if not new:
        return []
    ranges = _unused(len(base), steps)
    plain = Frame(0, packed_frame(new), len(new))
    if not ranges:
        return [plain]
    held = b"".join(base[at : at + size] for at, size in ranges)
    leaning = Frame(0, packed_frame(new, held), len(new), ranges)
    cost = len(leaning.data) + len(written_operations([Step(Code.INSERT, 1)], [leaning]))
    return [leaning if cost < len(plain.data) else plain]


def _unused(size: int, steps: Iterable[Step]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of the base that no step reads; none if they are too many bytes for a dictionary."""
    used = sorted((step.offset, step.offset + step.length) for step in steps if step.code != Code.INSERT)
    found: list[tuple[int, int]] = []
    at = 0
    for start, end in [*used, (size, size)]:
        if start > at:
            is_near = found and at - sum(found[-1]) <= _HOLE
            first = found.pop()[0] if is_near else at
            found.append((first, start - first))
        at = max(at, end)
    is_held = 0 < sum(length for _, length in found) <= _MAX_DICTIONARY and len(found) <= MAX_RANGES
    return tuple(found) if is_held else ()


def _rows(asked: Iterable[Piece], coded: Iterable[Coded]) -> Iterable[Row]:
    """Yield a row for each tensor, and one for all that lies between them."""
    between = Row("(between the constants)", "", 1, 0, 0)
    for piece, way in zip(asked, coded, strict=True):
        if piece.name:
            yield Row(piece.name, way.kind, piece.width, piece.length, way.cost)
        else:
            kind = way.kind if between.kind in ("", way.kind) else "mixed"
            between = Row(between.name, kind, 1, between.bytes + piece.length, between.cost + way.cost)
    yield between


def make(base: bytes, target: bytes) -> Patch:
    """Return the smallest patch from one file to another; ``is_worth_it`` says whether to send the full file instead.

    Raises:
        UsageError: A file too large to be compared in memory.

    Example:
        >>> base = bytes(i * i % 251 for i in range(9000))
        >>> patch = make(base, base[:8000] + b"another end")
        >>> patch.is_worth_it, patch.full
        (True, 8011)
    """
    if max(len(base), len(target)) > MAX_INPUT_BYTES:
        raise UsageError(f"more than {MAX_INPUT_BYTES} bytes", where="delta", fix="send the full file")
    rows: tuple[Row, ...]
    by_tensors, rows = with_tensors(base, target)
    ways = {"tensors": by_tensors, "zstd-prefix": with_prefix(base, target), "zstd": without_base(target)}
    if not _is_readable(by_tensors):
        del ways["tensors"]
    codec = min(ways, key=lambda name: len(ways[name]))
    if len(ways[codec]) > WORTH * len(ways["zstd"]):
        codec = "zstd"  # a base that helps this little is not worth needing it
    others = {name: len(data) for name, data in ways.items() if name != codec}
    empty = hashlib.sha256(b"").hexdigest()
    return Patch(
        codec,
        ways[codec],
        empty if codec == "zstd" else hashlib.sha256(base).hexdigest(),
        hashlib.sha256(target).hexdigest(),
        len(target),
        len(ways["zstd"]),
        rows if codec == "tensors" else (),
        others,
    )


def _is_readable(patch: bytes) -> bool:
    """Devices take a bounded number of operations: a file of very many tensors may need more."""
    try:
        Header.from_bytes(patch, len(patch))
    except DeltaError:
        return False
    return True
