# SPDX-License-Identifier: Apache-2.0
"""How often do intervals and bounds hold the truth, beside other ways to compute them?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.coverage.worlds import Array, Truth, World, truth_of
from benchmarks.quantiles import quantile_interval, upper_bound
from benchmarks.stats.resampling import median_of_launches, resampled
from benchmarks.stats.summary import summarise

__all__ = ["Cell", "cover"]

Launches = Sequence[Array]
Span = tuple[float, float] | None


@dataclass(frozen=True)
class Cell:
    """One method in one world.

    Attributes:
        world, method: Names; a method in brackets is not printed.
        launches, runs: Of one simulated measurement.
        nominal: Coverage that the method promises.
        given: Share of the simulations in which there was an interval at all.
        held: Share of the given ones that held the truth.
        width: Median of (high - low) / truth; of a bound, of bound / truth - 1.
        simulations: How many.
    """

    world: str
    method: str
    launches: int
    runs: int
    nominal: float
    given: float
    held: float | None
    width: float | None
    simulations: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self)


def _printed(launches: Launches) -> dict[str, Span]:
    found, medians = summarise(launches), median_of_launches(launches)  # type: ignore[arg-type]
    return {
        "median of launch medians": (medians.low, medians.high),
        "p50 of all runs": (found.p50.low, found.p50.high),
        "p90 upper bound": _above(found.p90_bound),
        "p99 upper bound": _above(found.p99_bound),
    }


def _others(launches: Launches) -> dict[str, Span]:
    every = np.concatenate(launches).tolist()
    plain = quantile_interval(every, 0.5)
    ordered = quantile_interval([float(np.median(times)) for times in launches], 0.5)
    return {
        "(medians: plain percentiles, launches drawn)": _percentiles(launches, runs=False),
        "(medians: plain percentiles, launches and runs drawn)": _percentiles(launches, runs=True),
        "(medians: their order statistics)": (ordered.low, ordered.high) if ordered.coverage >= 0.95 else None,
        "(p50 as if runs were independent)": (plain.low, plain.high),
        "(p90 bound as if runs were independent)": _above(upper_bound(every, 0.9)),
        "(p99 bound as if runs were independent)": _above(upper_bound(every, 0.99)),
    }


def _above(bound: float | None) -> Span:
    return None if bound is None else (0.0, bound)


def _percentiles(launches: Launches, *, runs: bool) -> Span:
    low, high = np.quantile(resampled(launches, 1000, np.random.default_rng(0), runs=runs), [0.025, 0.975])
    return float(low), float(high)


def _about(method: str) -> tuple[float, str]:
    """Return the coverage that a method promises, and the truth that it is about."""
    if "medians" in method:
        return 0.95, "median_of_medians"
    return (0.99 if "bound" in method else 0.95), next(name for name in ("p50", "p90", "p99") if name in method)


def cover(world: World, launches: int, runs: int, simulations: int) -> list[Cell]:
    """Return a cell for each method: so many measurements of so many launches and runs."""
    random, truth = np.random.default_rng([launches, runs]), truth_of(world, runs)
    spans: dict[str, list[Span]] = {}
    times = world.draw(random, simulations * launches, runs).reshape(simulations, launches, runs)
    for drawn in map(list, times):
        for name, span in (_printed(drawn) | _others(drawn)).items():
            spans.setdefault(name, []).append(span)
    return [_cell(world.name, name, (launches, runs), found, truth) for name, found in spans.items()]


def _cell(world: str, name: str, size: tuple[int, int], found: Sequence[Span], truth: Truth) -> Cell:
    nominal, about = _about(name)
    true = float(getattr(truth, about))
    given = [one for one in found if one is not None]
    held = sum(low <= true <= high for low, high in given) / len(given) if given else None
    widths = [(high / true - 1) if low == 0 else (high - low) / true for low, high in given]
    width = float(np.median(widths)) if widths else None
    return Cell(world, name, *size, nominal, len(given) / len(found), held, width, len(found))
