# SPDX-License-Identifier: Apache-2.0
"""What a result says of one stage: the median with its interval, and the tails as far as the runs support them."""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.quantiles import Interval
from benchmarks.stats.launches import Launches, as_arrays, effective_runs, quantile_of_launches, upper_bound_of_launches
from benchmarks.stats.resampling import median_of_launches

__all__ = ["Summary", "summarise"]

_COVERAGE = 0.95


@dataclass(frozen=True)
class Summary:
    """What a result says of one stage, in the unit of the times.

    Attributes:
        n, launches: Runs and launches.
        minimum, maximum: Of all runs.
        p50: The median of all runs with its 95 % interval; of few launches, at least that of their medians.
        p90, p99: Of all runs.
        p90_bound, p99_bound: One-sided 99 % upper bounds; None: too few effective runs for one.
        effective: How many independent runs these runs are worth for the median.
    """

    n: int
    launches: int
    minimum: float
    p50: Interval
    p90: float
    p90_bound: float | None
    p99: float
    p99_bound: float | None
    maximum: float
    effective: float


def summarise(launches: Launches) -> Summary:
    """Return everything that a result says of one stage.

    Raises:
        UsageError: No launch, or a launch without runs.
    """
    arrays = as_arrays(launches)
    everything = np.concatenate(arrays)
    p50 = _middle(launches)
    return Summary(
        n=len(everything),
        launches=len(arrays),
        minimum=float(everything.min()),
        p50=p50,
        p90=float(np.quantile(everything, 0.9)),
        p90_bound=upper_bound_of_launches(launches, 0.9),
        p99=float(np.quantile(everything, 0.99)),
        p99_bound=upper_bound_of_launches(launches, 0.99),
        maximum=float(everything.max()),
        effective=effective_runs(arrays, p50.point),
    )


def _middle(launches: Launches) -> Interval:
    """Return the median of all runs; where their effective number gives no 95 % interval, with that of launch medians.

    Three launches have no order statistics that hold 95 %, but a t-interval of their medians.
    """
    found = quantile_of_launches(launches, 0.5, _COVERAGE)
    if found.coverage >= _COVERAGE or len(launches) < 2:
        return found
    wider = median_of_launches(launches, _COVERAGE)
    return replace(found, low=min(found.low, wider.low), high=max(found.high, wider.high), coverage=_COVERAGE)
