# SPDX-License-Identifier: Apache-2.0
"""A KLL quantile sketch of numbers, many at once: what libraries send for each softmax column. For comparison only.

All sketches of a batch are fed as many numbers, so they compact at the same moments and lie in one array; only the
coin of each compaction is their own.

Reference:
    Karnin, Z., Lang, K., Liberty, E. (2016). Optimal Quantile Approximation in Streams. arXiv:1603.05346
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sketches", "sketch"]

_SHRINK: Final = 2 / 3
_LEAST: Final = 8
_HEADER: Final = 20  # flags, k, levels, n, lowest and highest value

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Sketches:
    """Values of each level [rows, size], level h with weight 2^h."""

    levels: tuple[Array, ...]

    @property
    def bytes(self) -> int:
        """Size of one sketch of float32 on the wire: header, start of each level, values."""
        return _HEADER + 4 * sum(1 + int(level.shape[1]) for level in self.levels)

    def weighted(self) -> tuple[Array, Array]:
        """Return the values of each sketch, ascending [rows, size], and the share that lies up to each."""
        values = np.concatenate(self.levels, axis=1)
        weights = np.concatenate([np.full(level.shape[1], 2.0**h) for h, level in enumerate(self.levels)])
        order = values.argsort(axis=1, kind="stable")
        below = weights[order].cumsum(axis=1)
        return np.take_along_axis(values, order, axis=1), below / below[:, -1:]


def sketch(streams: Array, *, k: int, random: np.random.Generator) -> Sketches:
    """Return the sketches of streams [rows, n].

    Example:
        >>> made = sketch(np.arange(2000.0)[None], k=200, random=np.random.default_rng(0))
        >>> values, shares = made.weighted()
        >>> made.bytes < 2000, bool(abs(values[0][shares[0].searchsorted(0.5)] - 1000) < 60)
        (True, True)
    """
    rows, n = streams.shape
    levels, at = [np.zeros((rows, 0))], 0
    while at < n:
        room = max(1, _capacity(k, len(levels)) - sum(level.shape[1] for level in levels))
        levels[0] = np.concatenate([levels[0], streams[:, at : at + room]], axis=1)
        at += room
        while sum(level.shape[1] for level in levels) >= _capacity(k, len(levels)) and at < n:
            _compact(levels, k, random)
    return Sketches(tuple(levels))


def _capacity(k: int, height: int) -> int:
    return sum([_room(k, height, h) for h in range(height)])


def _room(k: int, height: int, h: int) -> int:
    room: float = k * _SHRINK ** (height - 1 - h)
    return max(_LEAST, round(room))


def _compact(levels: list[Array], k: int, random: np.random.Generator) -> None:
    """Halve the lowest level that is full: every other value goes up, with twice the weight."""
    h = next(h for h, level in enumerate(levels) if level.shape[1] >= _room(k, len(levels), h))
    ordered = np.sort(levels[h], axis=1)
    even = ordered.shape[1] // 2 * 2
    rest, pairs = ordered[:, even:], ordered[:, :even].reshape(len(ordered), -1, 2)
    coin = random.integers(0, 2, len(ordered))
    promoted = pairs[np.arange(len(ordered)), :, coin]
    levels[h] = rest
    if h + 1 == len(levels):
        levels.append(promoted)
    else:
        levels[h + 1] = np.concatenate([levels[h + 1], promoted], axis=1)
