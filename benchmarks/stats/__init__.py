# SPDX-License-Identifier: Apache-2.0
"""Statistics of launches: intervals that hold, tests that may be trusted, and a verdict of three words.

A *launch* is one process and its runs. Runs of a launch are alike, so launches are the sample. Needs numpy; the order
statistics of independent values alone, ``benchmarks.quantiles``, do not.
"""

from benchmarks.quantiles import Interval, median, min_runs, quantile, quantile_interval, upper_bound
from benchmarks.stats.floor import NoiseFloor, floor_of, save_floor
from benchmarks.stats.launches import (
    VarianceSplit,
    effective_runs,
    launch_medians,
    quantile_of_launches,
    upper_bound_of_launches,
    variance_split,
)
from benchmarks.stats.modes import Modes, find_modes
from benchmarks.stats.ranktests import mann_whitney
from benchmarks.stats.resampling import median_of_launches, ratio_of_launches
from benchmarks.stats.summary import Summary, summarise
from benchmarks.stats.trend import Trend, trend
from benchmarks.stats.verdict import Verdict, judge, noise_of

__all__ = [
    "Interval", "Modes", "NoiseFloor", "Summary", "Trend", "VarianceSplit", "Verdict", "effective_runs", "find_modes",
    "floor_of", "judge", "launch_medians", "mann_whitney", "median", "median_of_launches", "min_runs", "noise_of",
    "quantile", "quantile_interval", "quantile_of_launches", "ratio_of_launches", "save_floor", "summarise", "trend",
    "upper_bound", "upper_bound_of_launches", "variance_split",
]  # fmt: skip
