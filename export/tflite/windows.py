# SPDX-License-Identifier: Apache-2.0
"""How the padding of a sliding window is said in TFLite: SAME or VALID where they mean it, else a PAD before."""

from dataclasses import dataclass

__all__ = ["Sliding", "Window", "channels_last"]

Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """One dimension of a sliding window: sizes before and after, kernel, stride, dilation, in pixels."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int = 1

    @property
    def needed(self) -> int:
        """How many padding pixels the steps read in all."""
        return max((self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - self.size, 0)

    def same(self) -> tuple[int, int]:
        """Return what TFLite's SAME adds before and after; the odd pixel goes after.

        Example:
            >>> Window(28, 14, 3, 2).same(), Window(28, 28, 3, 1).same()
            ((0, 1), (1, 1))
        """
        return self.needed // 2, self.needed - self.needed // 2

    def explicit(self, before: int) -> tuple[int, int]:
        """Return the padding with a given number of pixels before, and no more after than its last step reads.

        Example:
            >>> Window(28, 14, 3, 2).explicit(1)
            (1, 0)
        """
        reach = (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return before, max(reach - self.size - before, 0)

    @property
    def is_same_size(self) -> bool:
        """The output has the size that SAME gives."""
        return self.out == -(-self.size // self.stride)


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return [H, W, C] of [C, H, W]; flat shapes stay.

    Example:
        >>> channels_last((3, 28, 30)), channels_last((10,))
        ((28, 30, 3), (10,))
    """
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape


@dataclass(frozen=True)
class Sliding:
    """A window that slides over a map: shapes [C, H, W] before and after; kernel, stride, dilation (height, width)."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...] = (1, 1)

    def _windows(self) -> list[Window]:
        return [
            Window(self.before[1 + a], self.after[1 + a], self.kernel[a], self.stride[a], self.dilation[a])
            for a in (0, 1)
        ]

    def paddings(self, padding: tuple[int, ...]) -> Pairs:
        """Return (before, after) in height and width of a padding [top, left, bottom, right]."""
        return [window.explicit(first) for window, first in zip(self._windows(), padding, strict=False)]

    def scheme(self, pairs: Pairs) -> str:
        """Return VALID or SAME where it means exactly this padding, else an empty text.

        Example:
            >>> Sliding((1, 28, 28), (8, 28, 28), (3, 3), (1, 1)).scheme([(1, 1), (1, 1)])
            'SAME'
        """
        if not any(sum(pair) for pair in pairs):
            return "VALID"
        both = zip(self._windows(), pairs, strict=True)
        return "SAME" if all(window.same() == pair and window.is_same_size for window, pair in both) else ""
