# SPDX-License-Identifier: Apache-2.0
"""When a power sensor is not believed: each fault is one sentence, and any of them refuses the energy.

What is looked for: a window too short for the sensor's own noise; samples that never come, come too seldom or leave a
hole; a number that never changes (a sensor that hangs repeats its last word); power below zero (the shunt is wired
backwards) or beyond what the sensor can tell; a single sample three times above, or a third of, all that is around it.
The capacitors of a board smooth its supply over milliseconds, so one sample alone does not do that.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from benchmarks.energy.integral import gap_ns, inside, powers
from benchmarks.energy.reading import Sample, SensorFacts, Window

__all__ = ["MIN_SAMPLES", "MIN_WINDOW_S", "faults_of"]

MIN_WINDOW_S: Final = 10.0
MIN_SAMPLES: Final = 20
_JUMP: Final = 3.0
_SLOW: Final = 0.5
_PERIODS: Final = 10
_LEAST_GAP_S: Final = 0.25


def faults_of(
    facts: SensorFacts, samples: Sequence[Sample], windows: Sequence[Window], rate_hz: float, least_s: float
) -> list[str]:
    """Return what is wrong with the samples in the windows.

    Args:
        facts: Of the sensor.
        samples: All of them, in the order of time.
        windows: Where energy is to be told.
        rate_hz: How often the sensor was to be asked.
        least_s: The shortest time of all windows together.
    """
    seconds = sum(end - begin for begin, end in windows) / 1e9
    if seconds < least_s:
        return [f"the windows last {seconds:.2f} s, and the sensor is believed from {least_s:g} s on"]
    kept = [inside(samples, window) for window in windows]
    found = _rate(facts, sum(len(part) for part in kept), seconds, rate_hz)
    if found:
        return found
    hole = max(gap_ns(samples, window) for window in windows) / 1e9
    limit = max(_LEAST_GAP_S, _PERIODS / rate_hz)
    found = [f"no sample for {hole:.2f} s, and {limit:.2f} s is the longest hole"] if hole > limit else []
    below = [sample.watts for part in kept for sample in part if sample.watts is not None and sample.watts < 0]
    if below and min(below) < -2 * facts.lsb_w - 1e-9:
        found.append(f"power below zero ({min(below):.3f} W): is the shunt wired the other way round")
    return found + _values(facts, [[value for _, value in powers(part)] for part in kept])


def _rate(facts: SensorFacts, count: int, seconds: float, rate_hz: float) -> list[str]:
    if count < MIN_SAMPLES:
        return [f"{count} samples in {seconds:.1f} s; at least {MIN_SAMPLES} are needed"]
    if count / seconds < _SLOW * rate_hz:
        return [f"{count / seconds:.1f} samples a second of {facts.name}, which promises {rate_hz:g}"]
    return []


def _values(facts: SensorFacts, parts: Sequence[Sequence[float]]) -> list[str]:
    values = [value for part in parts for value in part]
    found = []
    if len(set(values)) == 1:
        found.append(f"{len(values)} times the same {values[0]:.4f} W: the sensor hangs, or is too coarse for this")
    if facts.full_scale_w is not None and max(values) > facts.full_scale_w:
        found.append(f"{max(values):.3f} W is beyond the sensor's {facts.full_scale_w:.3f} W: it saturates, or jumps")
    jumps = sum(_jumps(part, facts.lsb_w) for part in parts)
    if jumps:
        found.append(f"{jumps} single samples are {_JUMP:g} times above or below all around them: a bad contact or bus")
    return found


def _jumps(values: Sequence[float], lsb_w: float) -> int:
    """Return how many single samples stand alone, above or below their neighbours and the median."""
    if len(values) < MIN_SAMPLES:
        return 0
    middle, floor = median(values), 8 * lsb_w + 1e-6
    count = 0
    for (a, b), (_, c) in pairwise(pairwise(values)):
        high, low = max(a, c, middle), min(a, c, middle)
        count += b > _JUMP * high + floor or (b < low / _JUMP - floor)
    return count
