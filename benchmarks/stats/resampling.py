# SPDX-License-Identifier: Apache-2.0
"""The median of launch medians and ratios of it, by a bootstrap of launches, and of the runs of few launches.

Each resample draws launches with replacement and takes the median of their medians. What the runs of a launch scatter
is in these medians already: drawing runs anew as well counts it twice, and intervals hold 98 to 100 % (``python -m
benchmarks.coverage``). A percentile bootstrap of few launches is too narrow, so its levels are those of Student's t
(Hesterberg); the ratio of two sides has twice as many of them and needs no such help. Of fewer than six launches not
even the range of their medians holds 95 %; then runs are drawn anew, too:
a new median of a launch is its quantile at a beta variable (Maritz and Jarrett), with the autocorrelated runs at their
effective number; and the interval is at least the t-interval of the logarithms.

Reference:
    J. S. Maritz, R. G. Jarrett, A note on estimating the variance of the sample median, 1978;
    T. C. Hesterberg, What teachers should know about the bootstrap, 2015, section 4.3.3 (expanded percentiles)
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantiles import Interval, median
from benchmarks.stats.effective import design_effect
from benchmarks.stats.launches import Launches, as_arrays
from edge_contract.errors import UsageError
from edge_contract.tails import normal_sf, student_quantile

__all__ = ["FEW", "expanded_tail", "median_of_launches", "ratio_of_launches", "resampled"]

Array = NDArray[np.float64]

FEW: Final = 6
"""With fewer launches than this not even the range of their medians covers 95 %."""

_EFFICIENCY: Final = 1.2533  # the standard error of a median over that of a mean, of normal values


def median_of_launches(launches: Launches, coverage: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the median of the launches' medians with its interval: what the next launch's median is about.

    Args:
        launches: Times of each launch in the order of its runs; all positive.
        coverage: Of the interval.
        resamples: Of the bootstrap.
        seed: Of the bootstrap: the same times give the same interval.

    Raises:
        UsageError: No launch, a launch without runs, or a time that is not positive.

    Example:
        >>> draw = np.random.default_rng(1)
        >>> runs = [list(size * draw.lognormal(0, 0.05, 100)) for size in draw.lognormal(0, 0.02, 10)]
        >>> found = median_of_launches(runs)
        >>> found.low < 1.0 < found.high, found.n
        (True, 10)
    """
    arrays = _positive(launches)
    medians = [float(np.median(one)) for one in arrays]
    drawn = np.log(resampled(arrays, resamples, np.random.default_rng(seed), runs=len(arrays) < FEW))
    tail = (1 - coverage) / 2
    low, high = np.quantile(drawn, [expanded_tail(tail, len(arrays)), 1 - expanded_tail(tail, len(arrays))])
    middle = log(median(medians))
    half = _student_half([medians], tail)
    return Interval(exp(middle), exp(min(low, middle - half)), exp(max(high, middle + half)), coverage, len(arrays))


def ratio_of_launches(
    a: Launches, b: Launches, coverage: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the median of B's launch medians over that of A's, with its interval; above 1: B is slower.

    Raises:
        UsageError: A side without a launch, a launch without runs, or a time that is not positive.

    Example:
        >>> ratio_of_launches([[2.0] * 9] * 10, [[3.0] * 9] * 10).point
        1.5
    """
    sides = [_positive(a), _positive(b)]
    random = np.random.default_rng(seed)
    fewest, tail = min(map(len, sides)), (1 - coverage) / 2
    first, second = (np.log(resampled(side, resamples, random, runs=fewest < FEW)) for side in sides)
    medians = [[float(np.median(one)) for one in side] for side in sides]
    level = tail if fewest >= FEW else expanded_tail(tail, fewest)
    low, high = np.quantile(second - first, [level, 1 - level])
    point = median(medians[1]) / median(medians[0])
    half = _student_half(medians, tail)
    return Interval(point, min(exp(low), point * exp(-half)), max(exp(high), point * exp(half)), coverage, fewest)


def resampled(launches: Sequence[Array], resamples: int, random: np.random.Generator, *, runs: bool) -> Array:
    """Return the median of launch medians of each resample [resamples]; with ``runs``, these are drawn anew as well."""
    number = len(launches)
    chosen = random.integers(0, number, (resamples, number))
    if not runs:
        return np.asarray(np.median(np.array([np.median(one) for one in launches])[chosen], axis=1))
    found = np.empty((resamples, number))
    for place, one in enumerate(launches):
        mask = chosen == place
        found[mask] = _redrawn(one, int(mask.sum()), random)
    return np.asarray(np.median(found, axis=1))


def _redrawn(launch: Array, count: int, random: np.random.Generator) -> Array:
    """Return medians of a launch whose runs are drawn anew: its quantiles at beta variables."""
    ordered, middle = np.sort(launch), float(np.median(launch))
    worth = len(launch) / design_effect((launch <= middle).astype(np.float64))
    shape = (worth + 1) / 2
    levels = random.beta(shape, shape, count)
    places = (np.arange(len(launch)) + 0.5) / len(launch)
    return np.asarray(np.interp(levels, places, ordered))


def expanded_tail(tail: float, launches: int) -> float:
    """Return the level at which to cut a bootstrap of so few launches for this tail.

    Example:
        >>> round(expanded_tail(0.025, 10), 4), expanded_tail(0.025, 1)
        (0.0086, 0.025)
    """
    if launches < 2:
        return tail
    return normal_sf(sqrt(launches / (launches - 1)) * student_quantile(tail, launches - 1))


def _degrees(sides: Sequence[Sequence[float]]) -> float:
    """Return Welch's degrees of freedom of the sides' logarithms; those of the smaller side where nothing varies."""
    fewest = min(map(len, sides))
    if fewest < 2:
        return 1.0
    parts = [float(np.var(np.log(side), ddof=1)) / len(side) for side in sides]
    if sum(parts) <= 0:
        return fewest - 1
    return sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))


def _student_half(sides: Sequence[Sequence[float]], tail: float) -> float:
    """Return half the width of the t-interval of the sides' logarithms; 0 where all have launches enough, or one."""
    fewest = min(map(len, sides))
    if not 2 <= fewest < FEW:
        return 0.0
    variance = sum(float(np.var(np.log(side), ddof=1)) / len(side) for side in sides)
    return _EFFICIENCY * sqrt(variance) * student_quantile(tail, _degrees(sides))


def _positive(launches: Launches) -> list[Array]:
    arrays = as_arrays(launches)
    if any((one <= 0).any() for one in arrays):
        raise UsageError("a time that is not positive", where="statistics")
    return arrays
