# SPDX-License-Identifier: Apache-2.0
"""Do the times drift while they are measured: within the launches, and from launch to launch?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats.launches import Launches, as_arrays
from benchmarks.stats.ranktests import Kendall, kendall, sen_slope
from edge_contract.tails import normal_sf

__all__ = ["Trend", "trend"]

Array = NDArray[np.float64]

_BLOCKS: Final = 60
"""Block medians of a launch: they take most of the autocorrelation away, and pairs are many enough."""
_MINUTE: Final = 60e9


@dataclass(frozen=True)
class Trend:
    """A trend in one place.

    Attributes:
        where: ``within launches`` or ``between launches``.
        p: Two-sided p-value of "there is none".
        slope: Share of the median per minute; positive: it becomes slower.
    """

    where: str
    p: float
    slope: float


def trend(launches: Launches, starts_ns: Sequence[Sequence[int]]) -> tuple[Trend, ...]:
    """Return the trend within the launches and the one between them.

    Within: Kendall's S of the block medians of each launch, added up over the launches (as over the seasons of a
    year), so that ten launches are one test and not ten. Between: of the launches' medians over their starts.

    Args:
        launches: Times of each launch in the order of its runs.
        starts_ns: Start of each run on one clock, nanoseconds.

    Example:
        >>> starts = [[10**9 * i for i in range(60)]]
        >>> found = trend([[100.0 + i % 3 + i for i in range(60)]], starts)[0]
        >>> found.where, found.p < 0.01, round(found.slope, 2)
        ('within launches', True, 0.46)

    Reference:
        R. M. Hirsch, J. R. Slack, A nonparametric trend test for seasonal data with serial dependence, 1984
    """
    arrays = as_arrays(launches)
    starts = [np.asarray(one, np.float64) for one in starts_ns]
    level = float(np.median(np.concatenate(arrays)))
    parts = [_blocks(times, at) for times, at in zip(arrays, starts, strict=True)]
    slopes = [sen_slope(at, times) for at, times in parts if len(times) > 2]
    within = _p([kendall(times) for _, times in parts if len(times) > 2])
    medians = np.array([np.median(one) for one in arrays])
    firsts = np.array([at[0] for at in starts])
    return (
        Trend("within launches", within, float(np.median(slopes)) * _MINUTE / level if slopes else 0.0),
        Trend("between launches", _p([kendall(medians)]), sen_slope(firsts, medians) * _MINUTE / level),
    )


def _blocks(times: Array, starts: Array) -> tuple[Array, Array]:
    """Return the middle start and the median time of up to 60 blocks of a launch."""
    number = min(_BLOCKS, max(len(times) // 5, 1))
    cut = np.array_split(np.arange(len(times)), number)
    return np.array([np.median(starts[one]) for one in cut]), np.array([np.median(times[one]) for one in cut])


def _p(found: Sequence[Kendall]) -> float:
    s, variance = sum(one.s for one in found), sum(one.variance for one in found)
    if variance <= 0:
        return 1.0
    return min(1.0, 2 * normal_sf(max(abs(s) - 1, 0.0) / sqrt(variance)))
