# SPDX-License-Identifier: Apache-2.0
"""The median and an interval for it that assumes nothing about the distribution.

Between the k-th smallest and the k-th largest of n independent values lies the true median with probability
1 - 2 P(Bin(n, 1/2) < k): exact for every continuous distribution, and nothing random is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from edge_contract.errors import UsageError

__all__ = ["MedianInterval", "median", "median_interval"]


@dataclass(frozen=True)
class MedianInterval:
    """A median, its interval, and the probability with which such an interval holds the true median.

    ``coverage`` is at least what was asked for, or what all n values can give if that is less: with fewer than
    six values no interval reaches 95 %.
    """

    median: float
    low: float
    high: float
    coverage: float
    n: int


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


def _rank(n: int, coverage: float) -> tuple[int, float]:
    """Return the largest k whose interval, k-th smallest to k-th largest of n, keeps the coverage; and what it keeps.

    Whole numbers up to the last division: the tail of a large sample is far below what a float can hold.
    """
    below, found = 1, (1, max(1.0 - 2 / (1 << n), 0.0))
    for k in range(1, (n + 1) // 2 + 1):
        kept = 1.0 - 2 * below / (1 << n)
        if kept < coverage:
            break
        found = k, kept
        below += comb(n, k)
    return found


def median_interval(values: Sequence[float], coverage: float = 0.95) -> MedianInterval:
    """Return the median with the shortest order-statistic interval of at least this coverage.

    Raises:
        UsageError: No value.

    Example:
        >>> found = median_interval([float(i) for i in range(1, 21)])
        >>> found.low, found.high, round(found.coverage, 3)
        (6.0, 15.0, 0.959)

    Reference:
        H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition, section 7.1
    """
    middle, ordered, n = median(values), sorted(values), len(values)
    k, kept = _rank(n, coverage)
    return MedianInterval(middle, ordered[k - 1], ordered[n - k], kept, n)
