# SPDX-License-Identifier: Apache-2.0
"""Plan where activations lie in one block of memory, as TFLite's planner does: big ones first, into the best gap.

Reference: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (greedy by size);
TFLite's arena aligns every tensor to 64 bytes.
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["ALIGNMENT", "FOREVER", "Block", "arena_bytes"]

ALIGNMENT: Final = 64
FOREVER: Final = 1 << 31
MOST_BLOCKS: Final = 20_000  # placing is quadratic; real graphs have hundreds


@dataclass(frozen=True)
class Block:
    """A tensor with its life.

    Attributes:
        tensor: Its number; scratch memory has a negative one.
        size: Bytes.
        first, last: Operators between which it must keep its place, both included; FOREVER if nobody frees it.
    """

    tensor: int
    size: int
    first: int
    last: int

    def meets(self, other: "Block") -> bool:
        """Both live at some operator."""
        return self.first <= other.last and other.first <= self.last


def arena_bytes(blocks: Iterable[Block]) -> int:
    """Return the bytes of the arena that holds the blocks, none of which overlap while both live.

    Beyond MOST_BLOCKS blocks, all of them side by side: an upper bound.

    Example:
        >>> arena_bytes([Block(0, 100, 0, 1), Block(1, 50, 1, 2), Block(2, 100, 2, 3)])
        178
    """
    placed: list[tuple[int, int, Block]] = []
    highest = 0
    ordered = sorted(blocks, key=_order)
    if len(ordered) > MOST_BLOCKS:
        return sum(_aligned(block.size) for block in ordered)
    for block in ordered:
        if block.size == 0:
            continue
        offset = _best_gap(block, placed)
        insort(placed, (offset, block.tensor, block))
        highest = max(highest, offset + block.size)
    return highest


def _order(block: Block) -> tuple[int, int, int]:
    """What lives from the first operator to the end comes first, by number; the rest by size, then by first use."""
    if block.first == 0 and block.last == FOREVER:
        return (0, block.tensor, 0)
    return (1, -block.size, block.first)


def _best_gap(block: Block, placed: list[tuple[int, int, Block]]) -> int:
    """Return the offset of the smallest gap that holds the block, or the end of what it meets."""
    best, smallest, current = -1, 1 << 62, 0
    for offset, _, other in placed:
        if not other.meets(block):
            continue
        aligned = _aligned(current)
        if aligned + block.size <= offset and offset - aligned < smallest:
            best, smallest = aligned, offset - current
        current = max(current, offset + other.size)
    return best if best >= 0 else _aligned(current)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
