# SPDX-License-Identifier: Apache-2.0
"""Where each pixel of a model's input comes from: the same rule for height and for width, and the way back for boxes.

One side of n pixels goes: ``centre`` keeps a part, ``resize`` stretches it, ``fit``, ``crop`` and ``pad`` cut it or put
it into a frame. Offsets are rounded down, so an odd rest goes to the end (bottom, right).
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocess

__all__ = ["Axis", "Geometry", "geometry"]


@dataclass(frozen=True)
class Axis:
    """One side of an image on its way.

    Attributes:
        start, taken: First raw pixel that ``centre`` keeps, and how many.
        resized: Pixels after the resize.
        shift: Where the first resized pixel lies in the output; negative when it is cut off.
        low, high: The resized pixels that are seen, [low, high).
        output: Pixels of the model's input.
    """

    start: int
    taken: int
    resized: int
    shift: int
    low: int
    high: int
    output: int

    def framed(self, size: int) -> "Axis":
        """Return the axis in a centred frame of so many pixels, larger or smaller; what was cut off stays so."""
        offset = (self.output - size) // 2 if size < self.output else -((size - self.output) // 2)
        shift = self.shift - offset
        return replace(self, shift=shift, low=max(self.low, -shift), high=min(self.high, size - shift), output=size)

    def way_back(self) -> tuple[float, float]:
        """Return (a, b): what lies at a share s of the output came from a × s + b, in raw pixels."""
        step = self.taken / self.resized
        return self.output * step, self.start - self.shift * step


class Geometry(NamedTuple):
    """Both sides of an image."""

    height: Axis
    width: Axis


def geometry(p: Preprocess, height: int, width: int) -> Geometry:
    """Return where the pixels of a raw image of so many pixels go.

    Raises:
        DataError: A crop larger than the image, or an image larger than ``pad``.

    Example:
        >>> tall, wide = geometry(Preprocess(resize=(100, 100), fit="letterbox"), 50, 200)
        >>> (tall.resized, tall.shift), (wide.resized, wide.shift)
        ((25, 37), (100, 0))
    """
    sides = _centre(p, height, width)
    resized = _resized(p, sides[0][1], sides[1][1])
    axes = [Axis(start, taken, n, 0, 0, n, n) for (start, taken), n in zip(sides, resized, strict=True)]
    if p.resize is not None:
        axes = [axis.framed(size) for axis, size in zip(axes, p.resize, strict=True)]
    found = [axis.output for axis in axes]
    if p.crop is not None:
        if p.crop[0] > found[0] or p.crop[1] > found[1]:
            what = f"a crop of {p.crop[0]}×{p.crop[1]} from an image of {found[0]}×{found[1]}"
            raise DataError(what, where="preprocess", fix="resize first, or crop less")
        axes = [axis.framed(size) for axis, size in zip(axes, p.crop, strict=True)]
    if p.pad is not None:
        found = [axis.output for axis in axes]
        if p.pad[0] < found[0] or p.pad[1] < found[1]:
            what = f"an image of {found[0]}×{found[1]}, more than pad {p.pad[0]}×{p.pad[1]}"
            raise DataError(what, where="preprocess", fix="resize or crop first, or pad to more")
        axes = [axis.framed(size) for axis, size in zip(axes, p.pad, strict=True)]
    return Geometry(*axes)


def _centre(p: Preprocess, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (start, length) of what ``centre`` keeps of both sides, at least one pixel."""
    if not p.centre:
        return (0, height), (0, width)
    if len(p.centre) == 1:
        side = max(1, math.floor(p.centre[0] * min(height, width)))
        kept = (side, side)
    else:
        kept = (max(1, math.floor(p.centre[0] * height)), max(1, math.floor(p.centre[1] * width)))
    return ((height - kept[0]) // 2, kept[0]), ((width - kept[1]) // 2, kept[1])


def _resized(p: Preprocess, height: int, width: int) -> tuple[int, int]:
    """Return the size after the resize: the wanted one, or with ``fit`` one of the image's own aspect ratio."""
    if p.resize is None:
        return height, width
    if p.fit == "stretch":
        return p.resize
    tall, wide = p.resize
    # Integers decide which side fits exactly, so that no rounding of a quotient can make it one pixel short.
    by_height = (tall * width >= wide * height) == (p.fit == "cover")
    if by_height:
        return tall, _scaled(width, tall, height)
    return _scaled(height, wide, width), wide


def _scaled(side: int, wanted: int, of: int) -> int:
    """Return side × wanted / of, rounded down as torchvision does, at least one pixel."""
    return max(1, side * wanted // of)
