# SPDX-License-Identifier: Apache-2.0
"""Quantiles, and intervals and bounds for them that assume nothing about the distribution.

Of n independent values, as many lie below the true q-quantile as a binomial variable Bin(n, q) says. So the k-th
smallest value is above it with probability P(Bin(n, q) < k), whatever the distribution, and nothing random is drawn.
Runs of one process are not independent: what is printed of launches comes from ``benchmarks.stats``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from edge_contract.errors import UsageError
from edge_contract.tails import beta_sf

__all__ = [
    "Interval", "below", "median", "median_interval", "min_runs", "quantile", "quantile_interval", "ranks",
    "upper_bound", "upper_rank",
]  # fmt: skip

_MOST_RUNS: Final = 1 << 40


@dataclass(frozen=True)
class Interval:
    """An estimate, its interval, and the probability with which such an interval holds the true value.

    ``coverage`` is at least what was asked for, or what all n values can give if that is less: with fewer than
    six values no interval of a median reaches 95 %.
    """

    point: float
    low: float
    high: float
    coverage: float
    n: int

    def to_json(self, name: str = "point") -> dict[str, float | int]:
        """Return the JSON form; ``name`` is the key of the estimate.

        Example:
            >>> Interval(2.0, 1.0, 3.0, 0.95, 20).to_json("median")
            {'median': 2.0, 'low': 1.0, 'high': 3.0, 'coverage': 0.95, 'n': 20}
        """
        return {name: self.point, "low": self.low, "high": self.high, "coverage": self.coverage, "n": self.n}


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number, the middle of the two in the middle.

    Raises:
        UsageError: No value.

    Example:
        >>> median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])
        (2.0, 2.5)
    """
    if not values:
        raise UsageError("the median of nothing")
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile, between two values by their distance (Hyndman and Fan's type 7, as NumPy).

    Raises:
        UsageError: No value, or q outside 0 to 1.

    Example:
        >>> quantile([1.0, 2.0, 3.0, 4.0], 0.9)
        3.7
    """
    if not values or not 0.0 <= q <= 1.0:
        raise UsageError(f"the {q} quantile of {len(values)} values")
    ordered, place = sorted(values), q * (len(values) - 1)
    first = min(int(place), len(ordered) - 1)
    rest = place - first
    return ordered[first] + (rest * (ordered[first + 1] - ordered[first]) if rest else 0.0)


def below(k: int, n: int, q: float) -> float:
    """Return P(Bin(n, q) < k): how probably the k-th smallest of n values is above the q-quantile.

    Example:
        >>> round(below(44, 44, 0.9), 4), below(0, 5, 0.5), below(6, 5, 0.5)
        (0.9903, 0.0, 1.0)
    """
    if k <= 0:
        return 0.0
    return 1.0 if k > n else beta_sf(q, k, n - k + 1)


def ranks(n: int, q: float, coverage: float) -> tuple[int, int, float]:
    """Return the ranks l, u of the interval from the l-th to the u-th smallest, and its coverage.

    Both tails get half of what may be missed. Where n values do not reach so far on one side, the other side takes
    all of it; where that is too little as well, all n values are the interval.

    Example:
        >>> ranks(20, 0.5, 0.95)[:2], ranks(100, 0.9, 0.95)[:2]
        ((6, 15), (84, 96))

    Reference:
        H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition, section 7.1
    """
    tail = (1.0 - coverage) / 2
    low, high = _largest_below(n, q, tail), _smallest_above(n, q, 1.0 - tail)
    if low < 1 or high > n:
        low, high = max(low, 1), min(high, n)
        while below(high, n, q) - below(low, n, q) < coverage and (low > 1 or high < n):
            low, high = (low - 1, high) if high == n else (low, high + 1)
    return low, high, below(high, n, q) - below(low, n, q)


@lru_cache(maxsize=1024)
def _largest_below(n: int, q: float, tail: float) -> int:
    """Return the largest k with P(Bin(n, q) < k) ≤ tail, 0 if there is none above."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below(middle, n, q) <= tail else (low, middle)
    return low


@lru_cache(maxsize=1024)
def _smallest_above(n: int, q: float, confidence: float) -> int:
    """Return the smallest k with P(Bin(n, q) < k) ≥ confidence; n + 1 if none of the n values is enough."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle, n, q) >= confidence else (middle, high)
    return high


def quantile_interval(values: Sequence[float], q: float, coverage: float = 0.95) -> Interval:
    """Return a quantile with its order-statistic interval of at least this coverage, for independent values.

    Args:
        values: At least one.
        q: Which quantile, between 0 and 1.
        coverage: Of the interval.

    Raises:
        UsageError: No value, or q not between 0 and 1.

    Example:
        >>> found = quantile_interval([float(i) for i in range(1, 101)], 0.9)
        >>> found.low, found.high, round(found.coverage, 3)
        (84.0, 96.0, 0.956)
    """
    _check(values, q)
    ordered, n = sorted(values), len(values)
    low, high, kept = ranks(n, q, coverage)
    point = median(values) if q == 0.5 else quantile(ordered, q)
    return Interval(point, ordered[low - 1], ordered[high - 1], kept, n)


def median_interval(values: Sequence[float], coverage: float = 0.95) -> Interval:
    """Return the median with its order-statistic interval of at least this coverage, for independent values.

    Raises:
        UsageError: No value.

    Example:
        >>> found = median_interval([float(i) for i in range(1, 21)])
        >>> found.low, found.high, round(found.coverage, 3)
        (6.0, 15.0, 0.959)
    """
    return quantile_interval(values, 0.5, coverage)


def upper_rank(n: int, q: float, confidence: float) -> int | None:
    """Return the rank of the smallest order statistic that is an upper bound; None where n values have none.

    Example:
        >>> upper_rank(64, 0.9, 0.99), upper_rank(43, 0.9, 0.99)
        (63, None)
    """
    rank = _smallest_above(n, q, confidence)
    return rank if rank <= n else None


def upper_bound(values: Sequence[float], q: float, confidence: float = 0.99) -> float | None:
    """Return the smallest value that is above the q-quantile with this confidence; None: too few values for one.

    This is the early-stopping estimate of MLPerf's load generator: the order statistic that still bounds the
    percentile, given how many runs there were. For independent values.

    Raises:
        UsageError: No value, or q not between 0 and 1.

    Example:
        >>> upper_bound([float(i) for i in range(1, 65)], 0.9), upper_bound([1.0] * 43, 0.9)
        (63.0, None)

    Reference:
        MLPerf Inference rules, "early stopping" (d = 0)
    """
    _check(values, q)
    rank = upper_rank(len(values), q, confidence)
    return None if rank is None else sorted(values)[rank - 1]


def min_runs(q: float, confidence: float = 0.99, exceedances: int = 0) -> int:
    """Return how many independent runs an upper bound of a quantile needs if so many may lie above it.

    Example:
        >>> [min_runs(0.9, 0.99, t) for t in (0, 1, 2)], min_runs(0.99, 0.99, 1)
        ([44, 64, 81], 662)

    Raises:
        UsageError: q or the confidence is not between 0 and 1, or a negative number of exceedances.
    """
    if not (0.0 < q < 1.0 and 0.0 < confidence < 1.0) or exceedances < 0:
        raise UsageError(f"runs for quantile {q} at {confidence} with {exceedances} above")
    low, high = exceedances, exceedances + 1
    while below(high - exceedances, high, q) < confidence and high < _MOST_RUNS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle - exceedances, middle, q) >= confidence else (middle, high)
    return high


def _check(values: Sequence[float], q: float) -> None:
    if not values:
        raise UsageError("the median of nothing" if q == 0.5 else f"the {q} quantile of nothing")
    if not 0.0 < q < 1.0:
        raise UsageError(f"quantile {q}", fix="give a number between 0 and 1, such as 0.9")
