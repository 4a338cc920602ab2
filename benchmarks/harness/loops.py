# SPDX-License-Identifier: Apache-2.0
"""How runs follow each other: warm-up, one after the other, and at the pace of a camera. Standard library only."""

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.harness.marks import Marks, Step
from benchmarks.quantiles import median
from benchmarks.steady import is_steady

__all__ = ["MOST_KEPT", "Paced", "Warm", "closed", "paced", "room_for", "warm_up"]

MOST_KEPT: Final = 300_000
"""Most runs whose times are kept of one launch; of more, one of every so many."""
_SPIN_NS: Final = 300_000
"""So long before a frame is due we stop to sleep: a sleeping process is woken some 50 µs late."""


@dataclass(frozen=True)
class Warm:
    """A warm-up: its runs, whether the times stood still at its end, and how long a run then took, nanoseconds."""

    runs: int
    is_steady: bool
    run_ns: float


def warm_up(
    step: Step, marks: Marks, samples: int, *, least: int, seconds: float, cap_s: float, clock: Callable[[], int]
) -> Warm:
    """Run until warm: ``least`` runs, ``seconds``, and until the last five times are those of the five before.

    Args:
        step, marks: What runs, and where it marks its times; the rows are used in turn.
        samples: How many inputs there are; they are cycled.
        least, seconds: Both must be reached.
        cap_s: Ends it in any case.
        clock: ``time.perf_counter_ns``.
    """
    spent: list[int] = []
    first, low, high = clock(), marks.columns[0], marks.columns[-1]
    while True:
        row = len(spent) % marks.room
        step(len(spent) % samples, row)
        spent.append(high[row] - low[row])
        passed = (clock() - first) / 1e9
        is_enough = len(spent) >= least and passed >= seconds
        if (is_enough and is_steady(spent[-10:])) or passed >= cap_s:
            return Warm(len(spent), is_enough and is_steady(spent[-10:]), median(spent[-10:]))


def room_for(run_ns: float, runs: int, seconds: float) -> tuple[int, int]:
    """Return how many rows a launch needs, and of how many runs one is kept.

    Half as many again as the warm-up promises, since a machine that turns faster must find room, too.

    Example:
        >>> room_for(1e6, 100, 10.0), room_for(1e4, 100, 900.0)
        ((15100, 1), (300000, 451))
    """
    expected = runs + int(1.5 * seconds * 1e9 / max(run_ns, 1.0))
    every = -(-expected // MOST_KEPT)
    return min(expected, MOST_KEPT), every


def closed(step: Step, marks: Marks, samples: int, *, runs: int, seconds: float, every: int = 1) -> int:
    """Run one after the other until both ``runs`` and ``seconds`` are reached, or there is no row left.

    Args:
        step, marks, samples: As of ``warm_up``.
        runs: Fewest rows.
        seconds: Shortest time from the start of the first row to the end of the last one.
        every: So many runs share a row, and the last one of them stays in it.

    Returns:
        How many rows were filled.
    """
    starts, ends, length_ns = marks.columns[0], marks.columns[-1], round(seconds * 1e9)
    row = which = 0
    while True:
        for _ in range(every):
            step(which, row)
            which = which + 1 if which + 1 < samples else 0
        row += 1
        if (row >= runs and ends[row - 1] - starts[0] >= length_ns) or row >= marks.room:
            return row


@dataclass(frozen=True)
class Paced:
    """What a paced loop leaves: rows filled, the intended start of each, and frames that were never begun."""

    count: int
    due_ns: "array[int]"
    dropped: int


def paced(step: Step, marks: Marks, samples: int, *, fps: float, runs: int, seconds: float) -> Paced:
    """Run at the pace of a camera that keeps its newest frame only.

    The k-th frame is due at start + k / fps, whatever the runs before it took: a slow run therefore does not shift the
    frames after it, and their wait counts (no coordinated omission). When a run ends after several frames came, the
    newest one is taken and the others are dropped.

    Args:
        step, marks, samples: As of ``warm_up``.
        fps: Frames a second.
        runs, seconds: Both must be reached: so many frames are begun, in so much time.

    Reference:
        Gil Tene, How NOT to Measure Latency, 2013 (coordinated omission); wrk2's intended start times
    """
    clock, period = time.perf_counter_ns, 1e9 / fps
    ends, due_ns = marks.columns[-1], array("q", bytes(8 * marks.room))
    first = clock() + round(period)
    stop = first + round(seconds * 1e9)
    frame = row = dropped = 0
    while True:
        due = first + round(frame * period)
        _wait(due, clock)
        due_ns[row] = due
        step(frame % samples, row)
        row += 1
        if (row >= runs and ends[row - 1] >= stop) or row >= marks.room:
            return Paced(row, due_ns, dropped)
        newest = max(int((ends[row - 1] - first) // period), frame + 1)
        dropped += newest - frame - 1
        frame = newest


def _wait(due: int, clock: Callable[[], int]) -> None:
    left = due - clock()
    if left > _SPIN_NS:
        time.sleep((left - _SPIN_NS) / 1e9)
    while clock() < due:
        pass
