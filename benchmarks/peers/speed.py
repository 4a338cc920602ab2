# SPDX-License-Identifier: Apache-2.0
"""Time two model files call by call in turns, and the float file against itself: the noise of this machine, now.

A call of A, a call of B, then B before A, and so on: what else the machine does falls on both. The answer is the
ratio of medians, A/B, above 1 where B is faster. The run has five parts with sessions opened anew, because where a
session's memory happens to lie moves its speed by several per cent for as long as it lives, which no number of calls
averages out. The parts must agree with the answer, and no ratio closer to 1 than the A/A rows is a difference.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.peers import sessions
from benchmarks.quantiles import median, median_interval
from edge_contract.errors import MeasurementError

__all__ = ["Turns", "aa", "files", "opened", "turns"]

SAMPLES: Final = 64  # different inputs, round and round: more than a branch predictor remembers
WARMUP: Final = 20
PARTS: Final = 5


@dataclass(frozen=True)
class Turns:
    """Two callables timed in turns.

    Attributes:
        a_us, b_us: Medians per call in microseconds.
        ratio: a_us / b_us.
        low, high: 95 % order-statistic interval of the median of the paired ratios.
        parts: The ratio in each part of the run.
        calls: Calls of each.
    """

    a_us: float
    b_us: float
    ratio: float
    low: float
    high: float
    parts: tuple[float, ...]
    calls: int


def turns(
    open_a: Callable[[], Callable[[], object]],
    open_b: Callable[[], Callable[[], object]],
    calls: int,
    *,
    parts: int = PARTS,
    warmup: int = WARMUP,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Turns:
    """Time two callables in turns, in the order A B B A A B ….

    Args:
        open_a: Opens the one to compare with, once for each part.
        open_b: Opens the other.
        calls: Timed calls of each, in all.
        parts: How often both are opened anew.
        warmup: Untimed calls of each at the start of each part.
        clock: Nanoseconds that never go back.

    Raises:
        MeasurementError: No part, or fewer than six calls in one, which leave no interval.

    Example:
        >>> ticks = iter(range(10**6))
        >>> a, b = (lambda: lambda: None), (lambda: lambda: [next(ticks)])
        >>> found = turns(a, b, 12, parts=2, warmup=0, clock=lambda: next(ticks))
        >>> found.ratio, found.parts, found.calls
        (0.5, (0.5, 0.5), 12)
    """
    if parts < 1 or calls // parts < 6:
        raise MeasurementError(f"{calls} calls in {parts} parts", where="turns", fix="time at least six in each")
    runs = [_part(open_a(), open_b(), calls // parts, warmup, clock) for _ in range(parts)]
    times = [pair for run in runs for pair in run]
    interval = median_interval([a_ns / max(b_ns, 1) for a_ns, b_ns in times])
    a_us, b_us = (median([pair[side] for pair in times]) / 1000 for side in (0, 1))
    ratios = tuple(_ratio(run) for run in runs)
    return Turns(a_us, b_us, _ratio(times), interval.low, interval.high, ratios, len(times))


def _part(
    a: Callable[[], object], b: Callable[[], object], calls: int, warmup: int, clock: Callable[[], int]
) -> list[tuple[int, int]]:
    for _ in range(warmup):
        a(), b()
    times = []
    for index in range(calls):
        if index % 2:
            b_ns, a_ns = _timed(b, clock), _timed(a, clock)
        else:
            a_ns, b_ns = _timed(a, clock), _timed(b, clock)
        times.append((a_ns, b_ns))
    return times


def _timed(call: Callable[[], object], clock: Callable[[], int]) -> int:
    start = clock()
    call()
    return clock() - start


def _ratio(times: Sequence[tuple[int, int]]) -> float:
    """Median of A over median of B."""
    return median([a for a, _ in times]) / max(median([b for _, b in times]), 1e-9)


def opened(path: Path, inputs: NDArray[np.float32]) -> Callable[[], object]:
    """Return one inference of a freshly opened file on the next prepared input."""
    loaded = sessions.load(path)
    prepared = itertools.cycle([loaded.prepare(one) for one in inputs[:SAMPLES]])
    return lambda: loaded.call(next(prepared))


def files(a: Path, b: Path, inputs: NDArray[np.float32], calls: int) -> dict[str, Any]:
    """Return the timing of two files of one runtime as a JSON object, with the load of the machine before it.

    Raises:
        MeasurementError: The files are of different runtimes.
        RuntimeAdapterError: The runtime refuses one.
    """
    if a.suffix != b.suffix:
        raise MeasurementError(f"{a.name} and {b.name} run in different runtimes", where="speed")
    load = describe().load_1min
    found = turns(lambda: opened(a, inputs), lambda: opened(b, inputs), calls)
    return {**asdict(found), "load_1min": load}


def aa(path: Path, inputs: NDArray[np.float32], calls: int) -> dict[str, Any]:
    """Return the timing of a file against a second session of itself: how far from 1 noise alone leads."""
    return files(path, path, inputs, calls)
