# SPDX-License-Identifier: Apache-2.0
"""K-means of numbers. In one dimension the best clustering is found exactly; nothing depends on a start.

Theory of operation: sorted, every best cluster is a run of neighbours. With D(k, i) the least error of the first i
values in k clusters, D(k, i) = min over j of D(k-1, j) + error(j, i). The best j never falls when i grows, so the
middle i of a range halves where its neighbours have to look (divide and conquer); all middles of one depth are solved
in one sweep of numpy. The cost is k · n · log n.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "centroids", "linear", "lloyd", "optimal"]

EXACT = 30_000
"""Distinct values up to which the exact method is used; beyond, values are first binned to so many, then Lloyd's."""
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def linear(values: Floats, k: int) -> Floats:
    """Return k centroids spread evenly from the least to the largest value.

    Reference:
        Han, Mao & Dally 2016, "Deep compression", section 3.2: the start that keeps the few large weights.
    """
    return np.linspace(values.min(), values.max(), k)


def lloyd(values: Floats, start: Floats, *, rounds: int = 100) -> Floats:
    """Return centroids after Lloyd's iteration, ascending; a centroid without values stays where it is.

    Example:
        >>> lloyd(np.array([0.0, 1.0, 9.0, 11.0]), np.array([0.0, 11.0])).tolist()
        [0.5, 10.0]

    Reference:
        Lloyd 1982, "Least squares quantization in PCM", method I.
    """
    found = np.sort(start)
    for _ in range(rounds):
        owner = np.searchsorted((found[1:] + found[:-1]) / 2, values)
        count = np.bincount(owner, minlength=len(found))
        total = np.bincount(owner, weights=values, minlength=len(found))
        moved = np.sort(np.where(count > 0, total / np.maximum(count, 1), found))
        if np.array_equal(moved, found):
            break
        found = moved
    return found


def optimal(values: Floats, k: int, counts: Floats | None = None) -> Floats:
    """Return the centroids of least squared error, ascending; at most k.

    Args:
        values: [n], in any order.
        k: Clusters.
        counts: How often each value stands, > 0; default once.

    Example:
        >>> optimal(np.array([10.0, 1.0, 2.0, 11.0, 30.0]), 3).tolist()
        [1.5, 10.5, 30.0]

    Reference:
        Wang & Song 2011, "Ckmeans.1d.dp"; divide and conquer as in Grønlund et al. 2017, "Fast exact k-means,
        k-medians and Bregman divergence clustering in 1D", section 3.
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    weight = np.bincount(inverse, weights=counts).astype(np.float64)
    if len(distinct) <= k:
        return distinct
    middle = float((weight @ distinct) / weight.sum())  # small numbers: sums of squares do not swallow each other
    sums = _Sums(distinct - middle, weight)
    return sums.means(_boundaries(sums, len(distinct), k)) + middle


class _Sums:
    """The squared error of any run of sorted values around its mean, from three running sums."""

    def __init__(self, values: Floats, weight: Floats) -> None:
        zero = np.zeros(1)
        self.weight = np.concatenate([zero, np.cumsum(weight)])
        self.first = np.concatenate([zero, np.cumsum(weight * values)])
        self.second = np.concatenate([zero, np.cumsum(weight * values * values)])

    def error(self, start: Integers, end: Integers) -> Floats:
        """Return the error of values[start:end], start < end."""
        first = self.first[end] - self.first[start]
        found: Floats = self.second[end] - self.second[start] - first * first / (self.weight[end] - self.weight[start])
        return np.maximum(found, 0.0)

    def means(self, bounds: Integers) -> Floats:
        """Return the mean of each run between neighbouring bounds."""
        found: Floats = np.diff(self.first[bounds]) / np.diff(self.weight[bounds])
        return found


def _boundaries(sums: _Sums, n: int, k: int) -> Integers:
    """Return the bounds [k + 1] of the best runs."""
    ends = np.arange(1, n + 1)
    best = np.concatenate([[np.inf], sums.error(np.zeros(n, np.int64), ends)])  # index i: the first i values
    splits = []
    for used in range(1, k):
        best, split = _extend(sums, best, used, n)
        splits.append(split)
    bounds = [n]
    for split in reversed(splits):
        bounds.append(int(split[bounds[-1]]))
    return np.array([0, *reversed(bounds)], np.int64)


def _extend(sums: _Sums, before: Floats, used: int, n: int) -> tuple[Floats, Integers]:
    """Add one cluster to ``used`` ones: least errors and the starts of the last cluster, for all i > used."""
    best, split = np.full(n + 1, np.inf), np.zeros(n + 1, np.int64)
    low, high = np.array([used + 1]), np.array([n])  # ranges of i, both ends in
    left, right = np.array([used]), np.array([n - 1])  # where their best j lies
    while len(low):
        middle = (low + high) // 2
        found, where = _sweep(sums, before, middle, left, np.minimum(right, middle - 1))
        best[middle], split[middle] = found, where
        starts, ends = np.concatenate([low, middle + 1]), np.concatenate([middle - 1, high])
        lefts, rights = np.concatenate([left, where]), np.concatenate([where, right])
        alive = starts <= ends
        low, high, left, right = starts[alive], ends[alive], lefts[alive], rights[alive]
    return best, split


def _sweep(sums: _Sums, before: Floats, ends: Integers, left: Integers, right: Integers) -> tuple[Floats, Integers]:
    """For each end, look at every start in its range: ranges of different lengths, laid out one after the other."""
    lengths = right - left + 1
    offsets = np.cumsum(lengths) - lengths
    starts = np.arange(int(lengths.sum())) + np.repeat(left - offsets, lengths)
    total = before[starts] + sums.error(starts, np.repeat(ends, lengths))
    least = np.minimum.reduceat(total, offsets)
    # The first start that reaches the least one.
    reaches = np.flatnonzero(total == np.repeat(least, lengths))
    first = reaches[np.searchsorted(reaches, offsets)]
    return least, starts[first]


def centroids(values: Floats, k: int) -> Floats:
    """Return at most k centroids: the best ones up to ``EXACT`` distinct values, beyond that binned, then Lloyd's.

    Example:
        >>> centroids(np.array([0.0, 0.1, 5.0]), 2).round(3).tolist()
        [0.05, 5.0]
    """
    if len(np.unique(values)) <= EXACT:
        return optimal(values, k)
    order = np.sort(values)
    parts = np.array_split(order, EXACT // 4)
    means, counts = np.array([part.mean() for part in parts]), np.array([float(len(part)) for part in parts])
    return lloyd(values, optimal(means, k, counts))
