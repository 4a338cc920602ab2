# SPDX-License-Identifier: Apache-2.0
"""Which tensor of the base each tensor of the target is most like.

Names inside a file are short and shift when a layer is added, so bytes decide: among the base's tensors of the same
width and length the one is taken whose differences have the least entropy; the name, then the order, break ties.
Several target tensors may lean on one of the base: it is only read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from export.delta.locate import parts_of
from export.delta.parts import Part

__all__ = ["Piece", "pieces"]

_SAMPLE: Final = 16_384
_MAX_CANDIDATES: Final = 64


@dataclass(frozen=True)
class Piece:
    """One run of the target, and where the base may hold something like it.

    Attributes:
        offset, length: Bytes in the target.
        bases: Offsets in the base to try; none for what has no counterpart.
        width: Bytes of an element.
        name: Of the tensor; empty for what lies between constants.
    """

    offset: int
    length: int
    bases: tuple[int, ...]
    width: int
    name: str


def pieces(base: bytes, target: bytes) -> list[Piece]:
    """Return the target as pieces, in file order and without holes."""
    known, asked = parts_of(base, "base"), parts_of(target, "target")
    partners = _partners(base, known, target, asked)
    found: list[Piece] = []
    at = base_at = 0
    for part, partner in zip(asked, partners, strict=True):
        after = partner.offset if partner else -1
        found += _between(at, part.offset - at, base_at, after, len(base))
        found.append(Piece(part.offset, part.length, (partner.offset,) if partner else (), part.width, part.name))
        at = part.offset + part.length
        base_at = partner.offset + partner.length if partner else -1
    return [*found, *_between(at, len(target) - at, base_at, len(base), len(base))]


def _between(at: int, length: int, base_at: int, base_end: int, base_size: int) -> Iterator[Piece]:
    """Yield the bytes between two constants: they may follow what came before in the base, or lead to what comes."""
    starts = {base_at: base_at >= 0, base_end - length: base_end >= 0}
    bases = tuple(start for start, is_known in starts.items() if is_known and 0 <= start <= base_size - length)
    if length:
        yield Piece(at, length, bases, 1, "")


def _partners(base: bytes, known: Sequence[Part], target: bytes, asked: Sequence[Part]) -> list[Part | None]:
    groups: dict[tuple[int, int], list[tuple[int, Part]]] = {}
    for index, part in enumerate(known):
        groups.setdefault((part.width, part.length), []).append((index, part))
    found: list[Part | None] = []
    for index, part in enumerate(asked):
        group = sorted(groups.get((part.width, part.length), []), key=lambda item: abs(item[0] - index))
        scored = [
            ((_entropy(base, other, target, part), other.name != part.name, order), other)
            for order, (_, other) in enumerate(group[:_MAX_CANDIDATES])
        ]
        found.append(min(scored, key=lambda item: item[0])[1] if scored else None)
    return found


def _entropy(base: bytes, other: Part, target: bytes, part: Part) -> float:
    """Return the entropy of a sample's byte differences, in tenths of a bit per byte."""
    size = min(part.length, _SAMPLE)
    skipped = (part.length - size) // 2
    first = np.frombuffer(base, np.uint8, size, other.offset + skipped)
    second = np.frombuffer(target, np.uint8, size, part.offset + skipped)
    shares = np.bincount(second - first, minlength=256) / size
    shares = shares[shares > 0]
    return round(float(-(shares * np.log2(shares)).sum()), 1)
