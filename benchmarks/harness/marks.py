# SPDX-License-Identifier: Apache-2.0
"""The clock around the stages of a run: five readings at most, into memory that was touched before.

A reading and its storing cost about a tenth of a microsecond on a PC; ``timer_cost`` measures what they add to one
stage. Differences are taken after the last run, so nothing is computed between two runs.
"""

import time
from array import array
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Marks", "Seam", "Step", "bare_step", "path_step", "timer_cost"]

Step = Callable[[int, int], None]
"""(which input, which row of the marks) → one run."""
_TRIES: Final = 2000


class Marks:
    """Clock readings of many runs: one column for each boundary between two stages.

    Args:
        stages: In their order; there is one boundary more than stages.
        room: Rows.

    Example:
        >>> marks = Marks(("invoke",), 2)
        >>> marks.columns[0][0], marks.columns[1][0] = 10, 25
        >>> marks.stages_ns(1)
        {'invoke': (15,), 'total': (15,)}
    """

    def __init__(self, stages: tuple[str, ...], room: int) -> None:
        self.stages, self.room = stages, room
        self.columns = [array("q", bytes(8 * room)) for _ in range(len(stages) + 1)]

    def starts(self, count: int) -> tuple[int, ...]:
        """Return when the first ``count`` runs began."""
        return tuple(self.columns[0][:count])

    def stages_ns(self, count: int) -> dict[str, tuple[int, ...]]:
        """Return stage → nanoseconds of the first ``count`` runs, and their ``total``."""
        pairs = zip(self.stages, self.columns, self.columns[1:], strict=False)
        found = {stage: _differences(low, high, count) for stage, low, high in pairs}
        return {**found, "total": _differences(self.columns[0], self.columns[-1], count)}


def _differences(low: "array[int]", high: "array[int]", count: int) -> tuple[int, ...]:
    return tuple(b - a for a, b in zip(low[:count], high[:count], strict=True))


def bare_step(
    marks: Marks, before: Callable[[int], object], run: Callable[[], object], after: Callable[[], object]
) -> Step:
    """Return a step of three stages. ``run`` is called as it is: no function of ours stands between clock and runtime.

    Args:
        marks: Of three stages.
        before: Writes the input of this number.
        run: The runtime's own call.
        after: Copies the outputs out.
    """
    clock = time.perf_counter_ns
    c0, c1, c2, c3 = marks.columns

    def step(which: int, row: int) -> None:
        c0[row] = clock()
        before(which)
        c1[row] = clock()
        run()
        c2[row] = clock()
        after()
        c3[row] = clock()

    return step


def path_step(marks: Marks, capture: Callable[[int], Any], answer: Callable[[Any], object], seam: "Seam") -> Step:
    """Return a step of four stages around an agent's path, whose call of the runtime goes through a seam.

    Args:
        marks: Of the stages capture, preprocess, invoke and postprocess.
        capture: Gives the raw input of this number.
        answer: The whole path.
        seam: Marks begin and end of the runtime's call in the middle of it.
    """
    clock = time.perf_counter_ns
    c0, c1, c2, c3, c4 = marks.columns
    seam.columns = (c2, c3)

    def step(which: int, row: int) -> None:
        seam.row = row
        c0[row] = clock()
        raw = capture(which)
        c1[row] = clock()
        answer(raw)
        c4[row] = clock()

    return step


class Seam:
    """Stands where a model calls its runtime and marks the time before and after the call."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run, self.row = run, 0
        self.columns: tuple[array[int], array[int]] = (array("q", [0]), array("q", [0]))

    def __call__(self, x: Any) -> Any:
        low, high = self.columns
        low[self.row] = time.perf_counter_ns()
        found = self._run(x)
        high[self.row] = time.perf_counter_ns()
        return found


def timer_cost() -> float:
    """Return what the marks add to one timed call, nanoseconds: the median of a whole step in which nothing is done.

    Example:
        >>> 0 < timer_cost() < 1e6
        True
    """
    marks = Marks(("preprocess", "invoke", "postprocess"), _TRIES)
    step = bare_step(marks, _nothing, _idle, _idle)
    for row in range(_TRIES):
        step(0, row)
    whole = sorted(marks.stages_ns(_TRIES)["total"])
    return whole[_TRIES // 2] / len(marks.stages)


def _nothing(which: int) -> None:
    """Take the place of a stage."""


def _idle() -> None:
    """Take the place of a stage."""
