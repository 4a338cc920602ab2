# SPDX-License-Identifier: Apache-2.0
"""Tests that look at ranks alone: are two sides alike (Mann and Whitney), and does a series go one way (Kendall)?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats.effective import autocorrelations
from edge_contract.errors import UsageError
from edge_contract.tails import normal_quantile, normal_sf

__all__ = ["Kendall", "kendall", "mann_whitney", "sen_slope"]

Array = NDArray[np.float64]

_EXACT: Final = 40
"""Up to so many values on each side the distribution of U is counted; beyond, and with ties, it is normal."""


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p-value of "neither side tends to be larger".

    Args:
        a: Independent values, such as the medians of launches.
        b: The other side's.

    Raises:
        UsageError: A side is empty.

    Example:
        >>> round(mann_whitney([1, 2, 3], [4, 5, 6]), 3), mann_whitney([1, 2], [1, 2])
        (0.1, 1.0)

    Reference:
        H. B. Mann, D. R. Whitney, On a test of whether one of two random variables is stochastically larger, 1947
    """
    if not a or not b:
        raise UsageError("a side without launches", where="Mann-Whitney")
    u = sum((x > y) + (x == y) / 2 for x in b for y in a)
    few, many = min(u, len(a) * len(b) - u), len(a) * len(b)
    ties = [count for count in Counter([*a, *b]).values() if count > 1]
    if not ties and max(len(a), len(b)) <= _EXACT:
        counts = _arrangements(len(a), len(b))
        return min(1.0, 2 * sum(counts[: int(few) + 1]) / sum(counts))
    n = len(a) + len(b)
    variance = many / 12 * (n + 1 - sum(t**3 - t for t in ties) / (n * (n - 1)))
    if variance <= 0:
        return 1.0
    return min(1.0, 2 * normal_sf((many / 2 - few - 0.5) / sqrt(variance)))


@lru_cache(maxsize=64)
def _arrangements(n: int, m: int) -> tuple[int, ...]:
    """Return in how many orders of n and m values U is 0, 1, … n·m: the Gaussian binomial's coefficients."""
    counts = [1]
    for i in range(1, m + 1):
        grown = [0] * (len(counts) + n + i)
        for power, count in enumerate(counts):  # times 1 - x^(n+i)
            grown[power] += count
            grown[power + n + i] -= count
        for power in range(i, len(grown)):  # divided by 1 - x^i
            grown[power] += grown[power - i]
        counts = grown[: n * i + 1]
    return tuple(counts)


@dataclass(frozen=True)
class Kendall:
    """Kendall's S of a series against time, its variance, and what autocorrelation does to it.

    Attributes:
        s: Pairs that grow less pairs that fall.
        variance: Of s, ties and autocorrelation counted in.
        inflation: By how much autocorrelation made the variance larger, at least 1.
    """

    s: float
    variance: float
    inflation: float


def kendall(series: Sequence[float] | NDArray[Any]) -> Kendall:
    """Return Kendall's S of a series in its order, with its variance after Hamed and Rao.

    The variance of independent values is multiplied by 1 + 2 Σ (n-k)(n-k-1)(n-k-2) ρ_k / (n (n-1)(n-2)), with the
    autocorrelations ρ_k of the ranks of the series less its trend; only those beyond chance (95 %) count, as long as
    they follow one another from lag 1, and they never make the variance smaller.

    Args:
        series: At most a few hundred values; block medians of a longer one.

    Example:
        >>> found = kendall([1.0, 2.0, 3.0, 4.0])
        >>> found.s, round(found.variance, 3)
        (6.0, 8.667)

    Reference:
        K. H. Hamed, A. R. Rao, A modified Mann-Kendall trend test for autocorrelated data, 1998
    """
    values = np.asarray(series, np.float64)
    n = len(values)
    s = float(np.sum(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)]))
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    inflation = _inflation(values)
    return Kendall(s, variance * inflation, inflation)


def _inflation(values: Array) -> float:
    n = len(values)
    if n < 4:
        return 1.0
    residual = values - sen_slope(np.arange(n), values) * np.arange(n)
    rho = autocorrelations(_ranked(residual))
    certain = normal_quantile(0.025) / sqrt(n)
    total = 0.0
    for k in range(1, n - 2):
        if rho[k] <= certain:
            break
        total += (n - k) * (n - k - 1) * (n - k - 2) * float(rho[k])
    return 1 + 2 * total / (n * (n - 1) * (n - 2))


def _ranked(values: Array) -> Array:
    found = np.empty(len(values))
    found[np.argsort(values, kind="stable")] = np.arange(len(values))
    return found


def sen_slope(times: NDArray[Any], values: NDArray[Any]) -> float:
    """Return the median of the slopes of all pairs: values per unit of time; 0 where no two times differ.

    Example:
        >>> sen_slope(np.arange(5.0), np.array([0.0, 2.0, 4.0, 6.0, 90.0]))
        2.0

    Reference:
        P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, 1968
    """
    first, second = np.triu_indices(len(times), 1)
    along = np.asarray(times, np.float64)[second] - np.asarray(times, np.float64)[first]
    rise = np.asarray(values, np.float64)[second] - np.asarray(values, np.float64)[first]
    moved = along != 0
    return float(np.median(rise[moved] / along[moved])) if moved.any() else 0.0
