# SPDX-License-Identifier: Apache-2.0
"""Quantiles of all runs of all launches, with intervals that hold although the runs are not independent.

Runs of one process share its memory layout, its clock and its neighbours in time. So launches are the sample, as in a
survey that questions whole households: the share of each launch's runs below the quantile varies from launch to launch,
and says how many independent runs all of them are worth (Korn and Graubard). For that number of runs the rule of the
order statistics holds, and the ranks are carried over to the values (Woodruff). A bound that the effective number does
not support is None, and not printed.

Reference:
    E. L. Korn, B. I. Graubard, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology, 1998;
    R. S. Woodruff, Confidence intervals for medians and other position measures, 1952
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantiles import Interval, ranks, upper_rank
from benchmarks.stats.effective import acf1, design_effect
from edge_contract.errors import UsageError
from edge_contract.tails import chi2_quantile, student_quantile

__all__ = [
    "Launches", "VarianceSplit", "as_arrays", "effective_runs", "launch_medians", "quantile_of_launches",
    "upper_bound_of_launches", "variance_split",
]  # fmt: skip

Array = NDArray[np.float64]
Launches = Sequence[Sequence[float]]

_UNLUCKY: Final = 0.05


@dataclass(frozen=True)
class VarianceSplit:
    """Where the times vary.

    Attributes:
        between: Standard deviation between launches, as a share of the time: what their own runs do not explain.
        within: Standard deviation of the runs of a launch, as a share of the time.
        acf1: Correlation of neighbouring runs, the median of the launches.
    """

    between: float
    within: float
    acf1: float


def as_arrays(launches: Launches) -> list[Array]:
    """Return the times of each launch as an array.

    Raises:
        UsageError: No launch, one without runs, or a time that is no finite number.
    """
    found: list[Array] = [np.asarray(one, np.float64) for one in launches]
    if not found or any(one.ndim != 1 or not one.size for one in found):
        raise UsageError(f"{len(found)} launches, of which one has no runs", where="statistics")
    if not all(np.isfinite(one).all() for one in found):
        raise UsageError("a time that is no number", where="statistics")
    return found


def launch_medians(launches: Launches) -> list[float]:
    """Return the median of each launch.

    Example:
        >>> launch_medians([[1.0, 2.0, 9.0], [4.0]])
        [2.0, 4.0]
    """
    return [float(np.median(one)) for one in as_arrays(launches)]


def effective_runs(launches: Sequence[NDArray[Any]], value: float, tail: float = 0.5, *, bound: bool = False) -> float:
    """Return how many independent runs the launches are worth for the share of runs that are at most the value.

    n* = n / D, where D is the variance of the share over that of independent runs, taken from the launches, and never
    less than the autocorrelation within them explains. Few launches know D badly. An interval pays for that with
    (t_(n-1) / t_(L-1))² (Korn and Graubard). A bound is printed or not by D itself, so that a D which came out small by
    luck would decide: it takes the D that is exceeded with 95 % (χ² of L - 1). A single launch has its autocorrelation
    only, and its number speaks of this launch alone.

    Args:
        launches: Times [n_i] of each.
        value: The estimate of the quantile.
        tail: Probability beyond the interval on one side; 0.5: nothing is paid.
        bound: For an upper bound.
    """
    hits = [(one <= value).astype(np.float64) for one in launches]
    n, number = sum(len(one) for one in hits), len(hits)
    weights = np.array([len(one) / n for one in hits])
    shares = np.array([one.mean() for one in hits])
    within = float(weights @ np.array([design_effect(one) for one in hits]))
    if number == 1:
        return n / within
    share = float(weights @ shares)
    spread = number / (number - 1) * float((weights**2) @ (shares - share) ** 2)
    alone = share * (1 - share) / n
    between = spread / alone if alone > 0 else 1.0
    if bound:
        return n / max(within, between * (number - 1) / chi2_quantile(1 - _UNLUCKY, number - 1))
    if tail >= 0.5:
        return n / max(within, between)
    paid = student_quantile(tail, n - 1) / student_quantile(tail, number - 1)
    return max(1.0, n / max(within, between) * paid**2)


def quantile_of_launches(launches: Launches, q: float, coverage: float = 0.95) -> Interval:
    """Return a quantile of all runs with its interval.

    ``coverage`` of the answer is what the effective number of runs can give, if that is less than was asked for.

    Args:
        launches: Times of each launch in the order of its runs.
        q: Which quantile, between 0 and 1.
        coverage: Of the interval.

    Raises:
        UsageError: No launch, a launch without runs, or q not between 0 and 1.

    Example:
        >>> draw = np.random.default_rng(1)
        >>> found = quantile_of_launches([list(draw.lognormal(0, 0.1, 200)) for _ in range(10)], 0.5)
        >>> found.low < 1.0 < found.high, found.n
        (True, 2000)
    """
    arrays = as_arrays(launches)
    _check(q)
    everything = np.sort(np.concatenate(arrays))
    point, n = float(np.quantile(everything, q)), len(everything)
    worth = max(1, floor(effective_runs(arrays, point, (1 - coverage) / 2)))
    low, high, kept = ranks(worth, q, coverage)
    first, last = floor((low - 1) / worth * n), min(ceil(high / worth * n), n) - 1
    return Interval(point, min(point, float(everything[first])), max(point, float(everything[last])), kept, n)


def upper_bound_of_launches(launches: Launches, q: float, confidence: float = 0.99) -> float | None:
    """Return a value that is above a quantile of all runs with this confidence; None: the runs do not support one.

    Raises:
        UsageError: No launch, a launch without runs, or q not between 0 and 1.

    Example:
        >>> draw = np.random.default_rng(1)
        >>> runs = [list(draw.exponential(1.0, 100)) for _ in range(10)]
        >>> upper_bound_of_launches(runs, 0.9) > 2.3, upper_bound_of_launches(runs[:1], 0.99)
        (True, None)
    """
    arrays = as_arrays(launches)
    _check(q)
    everything = np.sort(np.concatenate(arrays))
    worth = floor(effective_runs(arrays, float(np.quantile(everything, q)), bound=True))
    rank = upper_rank(worth, q, confidence)
    if rank is None:
        return None
    return float(everything[min(ceil(rank / worth * len(everything)), len(everything)) - 1])


def variance_split(launches: Launches) -> VarianceSplit:
    """Return how much of the spread lies between launches, how much within, and how alike neighbouring runs are.

    One-way random effects of the logarithms; what the runs alone would let launch means differ, autocorrelation
    included, is taken off the variance between launches.

    Raises:
        UsageError: No launch, a launch without runs, or a time that is not positive.

    Example:
        >>> split = variance_split([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
        >>> round(split.between, 2), split.within
        (0.49, 0.0)
    """
    arrays = as_arrays(launches)
    if any((one <= 0).any() for one in arrays):
        raise UsageError("a time that is not positive", where="statistics")
    logs = [np.log(one) for one in arrays]
    degrees = sum(len(one) - 1 for one in logs)
    within = sum(float(one.var()) * len(one) for one in logs) / degrees if degrees else 0.0
    by_chance = float(np.mean([within * design_effect(one) / len(one) for one in logs]))
    means = [float(one.mean()) for one in logs]
    between = float(np.var(means, ddof=1)) - by_chance if len(means) > 1 else 0.0
    alike = float(np.median([acf1(one) for one in logs]))
    return VarianceSplit(max(between, 0.0) ** 0.5, within**0.5, alike)


def _check(q: float) -> None:
    if not 0.0 < q < 1.0:
        raise UsageError(f"quantile {q}", fix="give a number between 0 and 1, such as 0.9")
