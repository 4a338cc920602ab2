# SPDX-License-Identifier: Apache-2.0
"""Are there two speeds? Hartigan's dip says whether one mode explains the times, two means say how far apart they are.

A gap of two means alone says little: a long tail has one as well. The dip alone flags a thousandth of a difference.
So both are asked for, the dip with the number of runs that autocorrelation leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats.effective import design_effect
from edge_contract.errors import UsageError

__all__ = ["Modes", "combined_p", "dip", "dip_p", "find_modes", "two_means"]

Array = NDArray[np.float64]

_MOST: Final = 2000
"""Order statistics that a dip is computed of: more would move it by less than 1/4000."""

_TAIL: Final = (0.5, 0.1, 0.05, 0.01, 0.001)
_SQRT_N_DIP: Final[dict[int, tuple[float, ...]]] = {
    4: (0.2500, 0.3744, 0.4141, 0.4623, 0.4883),
    6: (0.3015, 0.3892, 0.4032, 0.4688, 0.5391),
    10: (0.3092, 0.4124, 0.4418, 0.5047, 0.5701),
    20: (0.3273, 0.4332, 0.4689, 0.5380, 0.6141),
    50: (0.3453, 0.4579, 0.4962, 0.5713, 0.6612),
    100: (0.3541, 0.4714, 0.5107, 0.5907, 0.6892),
    200: (0.3616, 0.4802, 0.5209, 0.6003, 0.7027),
    500: (0.3682, 0.4893, 0.5307, 0.6165, 0.7179),
    1000: (0.3717, 0.4942, 0.5360, 0.6226, 0.7297),
    2000: (0.3733, 0.4969, 0.5388, 0.6254, 0.7365),
}
"""Sample size → upper quantiles of sqrt(n) · dip of uniform values, at ``_TAIL``; 100 000 samples of each size, 40 000
of the two largest."""


@dataclass(frozen=True)
class Modes:
    """Two speeds, or one.

    Attributes:
        p: Of Hartigan's dip at the effective number of runs, between 0.001 and 1.
        low, high: The medians of the two groups.
        gap: high / low - 1.
        share: Of the runs in the slow group.
    """

    p: float
    low: float
    high: float
    gap: float
    share: float


def dip(values: NDArray[Any]) -> float:
    """Return Hartigan's dip: the largest distance of the values' distribution from the nearest one with one mode.

    It lies between 1/(2n) and 1/4. Left of the mode the nearest one is the greatest convex minorant of the
    distribution, right of it the least concave majorant; the modal interval shrinks to where both are farthest apart,
    until that is no farther than what was left outside.

    Args:
        values: In any order [n].

    Raises:
        UsageError: No value.

    Example:
        >>> dip(np.arange(10.0)), dip(np.array([0.0] * 50 + [1.0] * 50))
        (0.05, 0.25)

    Reference:
        J. A. Hartigan, P. M. Hartigan, The dip test of unimodality, 1985
    """
    if not len(values):
        raise UsageError("the dip of nothing")
    x, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    after = np.cumsum(counts).astype(np.float64)  # the distribution at x times n, and just before it
    before, n = after - counts, float(after[-1])
    first, last, largest = 0, len(x) - 1, 1.0
    while last > first:
        part = slice(first, last + 1)
        left, right, widest, outside = _shrunk(x[part], before[part], after[part])
        if widest <= largest + 1e-9:
            break
        largest = max(largest, outside)
        first, last = first + left, first + right
    return largest / (2 * n)


def _shrunk(x: Array, before: Array, after: Array) -> tuple[int, int, float, float]:
    """Return the next modal interval, the distance of minorant and majorant there, and the largest one outside it."""
    below, above = _corners(x, before), _corners(x, -after)
    minorant = np.interp(x, x[below], before[below])
    majorant = np.interp(x, x[above], after[above])
    gap = majorant - minorant
    if gap[below].max() > gap[above].max():
        left = int(below[gap[below].argmax()])
        right = int(above[np.searchsorted(above, left)])
    else:
        right = int(above[gap[above].argmax()])
        left = int(below[np.searchsorted(below, right, side="right") - 1])
    outside = max(
        float(np.max(after[:left] - minorant[:left], initial=0.0)),
        float(np.max(majorant[right + 1 :] - before[right + 1 :], initial=0.0)),
    )
    return left, right, float(gap.max()), outside


def _corners(x: Array, y: Array) -> NDArray[np.intp]:
    """Return where the greatest convex minorant of the points touches them; x grows."""
    kept: list[int] = []
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    for i, (xi, yi) in enumerate(points):
        while len(kept) > 1:
            (xj, yj), (xk, yk) = points[kept[-2]], points[kept[-1]]
            if (yk - yj) * (xi - xj) < (yi - yj) * (xk - xj):
                break
            kept.pop()
        kept.append(i)
    return np.array(kept, np.intp)


def dip_p(found: float, n: float) -> float:
    """Return the p-value of a dip among n independent values with one mode, the uniform ones being the worst.

    From quantiles of sqrt(n) times the dip of uniform values, between them by the logarithm of p; below 0.001 by the
    last slope, which is too large a p and never too small a one.

    Example:
        >>> dip_p(0.25, 100) < 1e-3 < 0.5 <= dip_p(0.02, 100)
        True
    """
    sizes = sorted(_SQRT_N_DIP)
    bounded = min(max(n, sizes[0]), sizes[-1])
    columns = np.array([_SQRT_N_DIP[size] for size in sizes])
    row = [float(np.interp(1 / np.sqrt(bounded), 1 / np.sqrt(sizes[::-1]), column[::-1])) for column in columns.T]
    value = found * n**0.5
    if value <= row[0]:
        return 1.0 if value <= 0 else max(0.5, 1.0 - 0.5 * value / row[0])
    if value <= row[-1]:
        return float(np.exp(np.interp(value, row, np.log(_TAIL))))
    slope = np.log(_TAIL[-1] / _TAIL[-2]) / (row[-1] - row[-2])
    return float(_TAIL[-1] * np.exp(slope * (value - row[-1])))


def two_means(values: NDArray[Any]) -> tuple[Array, Array]:
    """Return the two groups of values, each sorted, whose squares about their means are smallest.

    Example:
        >>> [group.tolist() for group in two_means(np.array([5.0, 1.0, 1.2, 5.2]))]
        [[1.0, 1.2], [5.0, 5.2]]
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n, sums = len(ordered), np.cumsum(ordered)
    if n < 2:
        return ordered, ordered
    sizes = np.arange(1, n)
    between = sums[:-1] ** 2 / sizes + (sums[-1] - sums[:-1]) ** 2 / (n - sizes)
    cut = int(between.argmax()) + 1
    return ordered[:cut], ordered[cut:]


def find_modes(series: NDArray[Any]) -> Modes:
    """Return the two speeds of a series of positive times, and how sure it is that they are two.

    Args:
        series: Times in the order of the runs [n].

    Example:
        >>> draw = np.random.default_rng(1)
        >>> one, two = draw.normal(100, 2, 400), draw.normal(130, 2, 400)
        >>> found = find_modes(np.where(draw.random(400) < 0.5, one, two))
        >>> found.p < 0.001, round(found.gap, 1), find_modes(one).p > 0.01
        (True, 0.3, True)
    """
    logs = np.log(np.asarray(series, np.float64))
    fast, slow = two_means(logs)
    split = (fast[-1] + slow[0]) / 2
    worth = len(logs) / design_effect((logs > split).astype(np.float64))
    kept = np.sort(logs)
    if len(kept) > _MOST:
        kept = np.quantile(kept, (np.arange(_MOST) + 0.5) / _MOST)
    low, high = float(np.exp(np.median(fast))), float(np.exp(np.median(slow)))
    return Modes(dip_p(dip(kept), worth), low, high, high / low - 1, len(slow) / len(logs))


def combined_p(p_values: Sequence[float]) -> float:
    """Return one p-value for several launches: small if one is very small, or many are small (Simes).

    Example:
        >>> combined_p([0.04, 0.04, 0.04]), combined_p([0.001, 0.5])
        (0.04, 0.002)

    Reference:
        R. J. Simes, An improved Bonferroni procedure for multiple tests of significance, 1986
    """
    ordered = sorted(p_values)
    return min(1.0, *(len(ordered) * p / rank for rank, p in enumerate(ordered, 1)))
