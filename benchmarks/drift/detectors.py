# SPDX-License-Identifier: Apache-2.0
"""The detectors that ours is compared with. Each gives one number for a window; larger is stranger.

BBSDs   Kolmogorov-Smirnov distance of each softmax column from the reference, the largest (Bonferroni: all columns
        have the same sizes, so the largest distance has the smallest p-value). Needs every answer of the window.
KLL     The same from ten KLL sketches with k = 200, as a library would send them.
MMD     Maximum mean discrepancy of the embedding, Gaussian kernel with the median distance; against 1000 reference
        samples, which it needs in the raw.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift.coded import Seen
from benchmarks.drift.kll import sketch

__all__ = ["KLL_K", "Columns", "Kernel", "Places", "softmax"]

KLL_K: Final = 200
_MMD_REFERENCE: Final = 1000

Array = NDArray[Any]


def softmax(seen: Seen) -> Array:
    """Return the softmax of a pool's answers [n, K]."""
    logits = seen.logits.astype(np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = raised / raised.sum(axis=1, keepdims=True)
    return found


class Columns:
    """Kolmogorov-Smirnov distances of softmax columns from a reference [m, K]."""

    def __init__(self, reference: Array) -> None:
        self.size, self.columns = reference.shape
        self._sorted = np.sort(reference, axis=0)

    def distance(self, window: Array) -> float:
        """Return the largest distance over the columns of a window [n, K]."""
        n = len(window)
        grid = np.arange(1, n + 1) / n
        return max(self._apart(k, np.sort(window[:, k]), grid) for k in range(self.columns))

    def places(self, pool: Array) -> "Places":
        """Return a pool's columns [size, K] ready for many windows."""
        return Places.of(self._sorted, pool)

    def sketched(self, windows: Array, random: np.random.Generator) -> tuple[Array, int]:
        """Return the largest distance of each window [runs, n, K] as ten sketches tell it, and the bytes of the ten."""
        runs, n, columns = windows.shape
        made = sketch(windows.transpose(0, 2, 1).reshape(runs * columns, n), k=KLL_K, random=random)
        values, shares = made.weighted()
        found = [self._apart(i % columns, v, s) for i, (v, s) in enumerate(zip(values, shares, strict=True))]
        return np.array(found).reshape(runs, columns).max(axis=1), columns * made.bytes

    def p(self, distance: float, n: int) -> float:
        """Return the family p-value of a largest distance: Bonferroni over the columns, the asymptotic law."""
        whole = n * self.size / (n + self.size)
        beyond: float = stats.kstwobign.sf(distance * sqrt(whole))
        return float(min(1.0, self.columns * beyond))

    def _apart(self, k: int, values: Array, shares: Array) -> float:
        """Return sup |F - G| of column k against ascending values up to each of which lies a share."""
        column = self._sorted[:, k]
        upto = column.searchsorted(values, "right") / self.size
        before = column.searchsorted(values, "left") / self.size
        last = np.append(values[1:] != values[:-1], True)  # equal values jump together
        first = np.append(True, last[:-1])
        earlier = np.append(0.0, shares[:-1])
        return float(max(np.abs(shares - upto)[last].max(), np.abs(before - earlier)[first].max()))


@dataclass(frozen=True, eq=False)
class Places:
    """Where each sample of a pool lies, so that the distances of a window need no sorting.

    Attributes:
        rank: Of each sample among the different values of its column [K, size].
        upto, before: Share of the reference up to, and below, each different value, column by column.
    """

    rank: Array
    upto: tuple[Array, ...]
    before: tuple[Array, ...]

    @classmethod
    def of(cls, reference: Array, pool: Array) -> "Places":
        """Return the places of a pool [size, K] in an ascending reference [m, K]."""
        ranks, upto, before = [], [], []
        for column, values in zip(reference.T, pool.T, strict=True):
            different, rank = np.unique(values, return_inverse=True)
            ranks.append(rank)
            upto.append(column.searchsorted(different, "right") / len(column))
            before.append(column.searchsorted(different, "left") / len(column))
        return cls(np.stack(ranks), tuple(upto), tuple(before))

    def distance(self, rows: Array) -> float:
        """Return the largest distance over the columns of a window of the pool, as ``Columns.distance`` does."""
        worst = 0.0
        for rank, upto, before in zip(self.rank, self.upto, self.before, strict=True):
            counts = np.bincount(rank[rows], minlength=len(upto))
            below = counts.cumsum() / len(rows)
            worst = max(worst, np.abs(below - upto).max(), np.abs(below - counts / len(rows) - before).max())
        return float(worst)


@dataclass(frozen=True, eq=False)
class Kernel:
    """MMD² against raw reference embeddings [r, d]."""

    reference: Array
    scale: float
    own: float

    @classmethod
    def of(cls, embedding: Array, random: np.random.Generator) -> "Kernel":
        """Return the kernel of a reference's embeddings [m, d]."""
        chosen = embedding[random.choice(len(embedding), min(_MMD_REFERENCE, len(embedding)), replace=False)]
        reference = chosen.astype(np.float32)
        apart = _squared(reference, reference)
        scale = float(np.median(apart[np.triu_indices(len(apart), 1)]))
        return cls(reference, scale, _mean(apart, scale))

    def distance(self, window: Array) -> float:
        """Return the biased MMD² of a window's embeddings [n, d]."""
        here = window.astype(np.float32)
        own = _mean(_squared(here, here), self.scale)
        across = _mean(_squared(here, self.reference), self.scale)
        return float(own + self.own - 2 * across)


def _mean(squared: Array, scale: float) -> float:
    return float(np.exp(squared / np.float32(-scale)).mean(dtype=np.float64))


def _squared(a: Array, b: Array) -> Array:
    found: Array = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T, 0.0)
    return found
