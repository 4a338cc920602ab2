# SPDX-License-Identifier: Apache-2.0
"""Energy in a window from samples of power, or of a counter that the sensor keeps itself.

Power is a line between two samples, so the integral is the trapezoidal rule, exact for power that is piecewise linear
between the samples; at a window's edge the line is cut there. A counter is read at both edges, on the line between the
two looks around each. Before the first sample and behind the last one power stands still, for at most one gap: more is
``gap_ns``'s business.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.energy.reading import Sample, Window

__all__ = ["energy_j", "gap_ns", "inside", "is_counter", "powers"]

_NS = 1e-9


def is_counter(samples: Sequence[Sample]) -> bool:
    """Return whether the sensor counted the energy itself."""
    return bool(samples) and all(sample.joules is not None for sample in samples)


def inside(samples: Sequence[Sample], window: Window) -> Sequence[Sample]:
    """Return the samples in a window; they are in the order of time."""
    times = [sample.at_ns for sample in samples]
    return samples[bisect_left(times, window[0]) : bisect_right(times, window[1])]


def powers(samples: Sequence[Sample]) -> list[tuple[int, float]]:
    """Return (time, watts); of a counter the mean power up to each sample from the one before.

    Example:
        >>> powers([Sample(0, joules=0.0), Sample(500_000_000, joules=1.5), Sample(1_000_000_000, joules=2.0)])
        [(500000000, 3.0), (1000000000, 1.0)]
    """
    if is_counter(samples):
        pairs = pairwise(samples)
        return [
            (b.at_ns, ((b.joules or 0.0) - (a.joules or 0.0)) / ((b.at_ns - a.at_ns) * _NS))
            for a, b in pairs
            if b.at_ns > a.at_ns
        ]
    return [(sample.at_ns, sample.watts) for sample in samples if sample.watts is not None]


def energy_j(samples: Sequence[Sample], window: Window) -> float:
    """Return the joules of a window, 0 without any sample.

    Example:
        A ramp from 0 W to 4 W in two seconds, of which the second one counts: 3 W on average.

        >>> ramp = [Sample(0, 0.0), Sample(2_000_000_000, 4.0)]
        >>> energy_j(ramp, (1_000_000_000, 2_000_000_000))
        3.0
    """
    if is_counter(samples):
        points = [(sample.at_ns, sample.joules or 0.0) for sample in samples]
        return _at(points, window[1]) - _at(points, window[0])
    return _trapezoids(powers(samples), window)


def _trapezoids(points: Sequence[tuple[int, float]], window: Window) -> float:
    if not points:
        return 0.0
    begin, end = window
    within = [point for point in points if begin < point[0] < end]
    line = [(begin, _at(points, begin)), *within, (end, _at(points, end))]
    return sum((b[1] + a[1]) / 2 * (b[0] - a[0]) * _NS for a, b in pairwise(line))


def _at(points: Sequence[tuple[int, float]], when: int) -> float:
    """Return the value on the line between the two points around a moment; the first or last one outside of them."""
    k = bisect_left(points, (when, float("-inf")))
    if k == 0:
        return points[0][1]
    if k == len(points):
        return points[-1][1]
    (t0, v0), (t1, v1) = points[k - 1], points[k]
    return v0 + (v1 - v0) * (when - t0) / (t1 - t0)


def gap_ns(samples: Sequence[Sample], window: Window) -> int:
    """Return the longest time in a window without a sample, its edges included."""
    begin, end = window
    around = [begin, *(sample.at_ns for sample in inside(samples, window)), end]
    return max(b - a for a, b in pairwise(around))
