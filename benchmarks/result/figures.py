# SPDX-License-Identifier: Apache-2.0
"""The figures of a result, each from the samples of its launches. No figure that the number of runs cannot support."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.record import Launch
from benchmarks.result import codec
from benchmarks.result.schema import Cold, Energy, Latency, Sustained, Variance

__all__ = ["cold_of", "energy_of", "latency_of", "memory_of", "sustained_of", "throughput_of", "variance_of"]


def latency_of(launches: Sequence[Launch], stage: str, profile: str = "default") -> Latency:
    """Return one stage's times in microseconds, over all launches.

    The intervals take launches as the sample, since runs of one process are not independent. A tail whose bound the
    runs do not support is left out; the quick profile has none.
    """
    from benchmarks.stats import summarise  # numpy: reading a result needs none

    runs = [[time / 1000 for time in one.stages_ns[stage]] for one in launches if one.stages_ns[stage]]
    if not runs:
        return Latency(0, 0.0, 0.0)
    found = summarise(runs)
    p90_bound = None if profile == "quick" else found.p90_bound
    p99_bound = (
        None if p90_bound is None else found.p99_bound
    )  # without the nearer tail nobody believes the farther one
    interval = (found.p50.low, found.p50.high) if len(runs) > 1 else None
    return Latency(
        n=found.n,
        min=found.minimum,
        p50=found.p50.point,
        p50_ci95=interval,
        p90=found.p90 if p90_bound is not None else None,
        p90_ub99=p90_bound,
        p99=found.p99 if p99_bound is not None else None,
        p99_ub99=p99_bound,
        max=found.maximum,
    )


def throughput_of(launches: Sequence[Launch]) -> float | None:
    """Return samples per second of measured time; None where a launch has a single run."""
    spans = [(one.starts_ns[-1] + one.stages_ns["total"][-1] - one.starts_ns[0]) / 1e9 for one in launches if one.runs]
    count = sum(one.runs * one.every * one.batch for one in launches)
    return count / sum(spans) if sum(spans) > 0 else None


def cold_of(launches: Sequence[Launch]) -> Cold:
    """Return the medians over launches of each part of a cold start."""
    parts = ("process_ms", "import_ms", "load_ms", "first_ms")
    return Cold(*(median(getattr(one.cold, part) for one in launches) for part in parts))


def variance_of(launches: Sequence[Launch]) -> Variance:
    """Return where the spread of ``total`` comes from."""
    from benchmarks.stats import variance_split

    found = variance_split([[float(time) for time in one.stages_ns["total"]] for one in launches])
    return Variance(found.between, found.within, found.acf1)


def memory_of(launches: Sequence[Launch]) -> dict[str, int]:
    """Return the largest value of each kind of memory."""
    names = {name: None for one in launches for name in one.memory}
    return {name: max(one.memory[name] for one in launches if name in one.memory) for name in names}


def energy_of(reading: Mapping[str, Any] | None) -> Energy | None:
    """Return the sensor's reading in the result's words; what it says beyond them is kept."""
    return None if reading is None else codec.read(Energy, reading, "energy")


def sustained_of(launch: Launch) -> Sustained:
    """Return inferences per second of every whole minute, and when throttling was first seen.

    Shorter than two minutes, the minutes are quarters of the time: a trial run shows the same picture.
    """
    start = launch.starts_ns[0]
    span = launch.starts_ns[-1] + launch.stages_ns["total"][-1] - start
    width = 60_000_000_000 if span >= 120_000_000_000 else max(span // 4, 1)
    counts = [0] * max(int(span // width), 1)
    for at in launch.starts_ns:
        if (at - start) // width < len(counts):
            counts[(at - start) // width] += 1
    rates = tuple(launch.batch * launch.every * count / (width / 1e9) for count in counts)
    return Sustained(rates[0], rates[-1], rates, _first_throttle(launch), _end_temperature(launch, start, span, width))


def _first_throttle(launch: Launch) -> float | None:
    """Seconds until a throttling bit that was not set at the first reading, or until the core's counter rises."""
    before = next((one for one in launch.readings), None)
    for one in launch.readings:
        bits = (one.throttled or 0) & ~((before.throttled if before else 0) or 0)
        counted = (one.throttle_count or 0) > ((before.throttle_count if before else 0) or 0)
        if bits or counted:
            return max(0.0, (one.at_ns - launch.starts_ns[0]) / 1e9)
    return None


def _end_temperature(launch: Launch, start: int, span: int, width: int) -> float | None:
    late = [one.temp_c for one in launch.readings if one.temp_c is not None and one.at_ns >= start + span - width]
    return median(late) if late else None
