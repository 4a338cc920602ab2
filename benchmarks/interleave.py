# SPDX-License-Identifier: Apache-2.0
"""Time two things in turns, A B A B …, and say how B compares with A.

Blocks of one thing after the other mislead: whatever else the machine does falls on one of the two. In turns
it falls on both, so each pair gives one ratio B/A, and the median of the ratios with its order-statistic
interval is the answer. Two are told apart only if that interval leaves 1 out.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.machine import Machine, describe
from benchmarks.quantiles import Interval, median, median_interval
from edge_contract.errors import UsageError

__all__ = ["Comparison", "Side", "interleave", "loops_for"]

MIN_BLOCK_NS: Final = 1_000_000  # clock resolution and call overhead are then below 0.1 % of a block


@dataclass(frozen=True)
class Side:
    """One of the two: its name, the loops in each timed block, and the time of one call in each block."""

    name: str
    loops: int
    times_ns: tuple[float, ...]

    @property
    def median_ns(self) -> float:
        """Median time of one call."""
        return median(self.times_ns)


@dataclass(frozen=True)
class Comparison:
    """Two sides measured in turns.

    Attributes:
        a, b: The sides.
        ratio: Median of B/A over the pairs, with its interval; below 1: B is faster.
        machine: Where it was measured.
        command: What makes this measurement again.
    """

    a: Side
    b: Side
    ratio: Interval
    machine: Machine
    command: str

    @property
    def verdict(self) -> str:
        """In words, and no more than the interval allows."""
        if self.ratio.coverage < 0.9:
            return "too few pairs to tell"
        if self.ratio.high < 1.0:
            return f"B is faster: {1 / self.ratio.point:.2f}× (at least {1 / self.ratio.high:.2f}×)"
        if self.ratio.low > 1.0:
            return f"B is slower: {self.ratio.point:.2f}× (at least {self.ratio.low:.2f}×)"
        return "no difference was seen"

    def to_json(self) -> dict[str, Any]:
        """Return everything, raw times included, as a JSON object."""
        sides = {key: {**asdict(side), "median_ns": side.median_ns} for key, side in (("a", self.a), ("b", self.b))}
        return {
            "schema": "strop.compare/1",
            **sides,
            "ratio": self.ratio.to_json("median"),
            "verdict": self.verdict,
            "machine": asdict(self.machine),
            "command": self.command,
        }

    def to_text(self) -> str:
        """Return it for people."""
        r = self.ratio
        return "\n".join(
            [
                f"A  {self.a.name}: median {_human(self.a.median_ns)} of {r.n} blocks × {self.a.loops}",
                f"B  {self.b.name}: median {_human(self.b.median_ns)} of {r.n} blocks × {self.b.loops}",
                f"B/A {r.point:.4f}  [{r.low:.4f}, {r.high:.4f}] at {100 * r.coverage:.1f} %, {r.n} pairs in turns",
                f"{self.verdict}",
                f"machine: {self.machine}",
                f"command: {self.command}",
            ]
        )


def _human(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3f} {unit}"
    return f"{nanoseconds:.0f} ns"


def _block(call: Callable[[], object], loops: int, clock: Callable[[], int]) -> float:
    start = clock()
    for _ in range(loops):
        call()
    return (clock() - start) / loops


def loops_for(call: Callable[[], object], clock: Callable[[], int], *, block_ns: int = MIN_BLOCK_NS) -> int:
    """Return how many calls make a block long enough to be timed; a power of two."""
    loops = 1
    while _block(call, loops, clock) * loops < block_ns and loops < 1 << 20:
        loops *= 2
    return loops


def interleave(
    a: Callable[[], object],
    b: Callable[[], object],
    *,
    names: tuple[str, str] = ("A", "B"),
    pairs: int = 30,
    warmup: int = 3,
    command: str = "",
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Comparison:
    """Time two callables in turns.

    Args:
        a: The one to compare with.
        b: The other.
        names: What to call them.
        pairs: Turns of A and B; 30 give an interval of 95.7 % between the 10th and the 21st ratio.
        warmup: Untimed turns before the first pair.
        command: What to run for the same measurement.
        clock: Nanoseconds that never go back.

    Raises:
        UsageError: Fewer than one pair.

    Example:
        >>> found = interleave(lambda: sum(range(100)), lambda: sum(range(100)), pairs=6)
        >>> found.ratio.n, found.a.loops >= 1
        (6, True)
    """
    if pairs < 1 or warmup < 0:
        raise UsageError(f"{pairs} pairs after {warmup} warm-up turns", where="interleave", fix="use at least one pair")
    for _ in range(warmup):
        a(), b()
    loops = loops_for(a, clock), loops_for(b, clock)
    times = [(_block(a, loops[0], clock), _block(b, loops[1], clock)) for _ in range(pairs)]
    sides = [Side(names[i], loops[i], tuple(pair[i] for pair in times)) for i in range(2)]
    ratio = median_interval([second / max(first, 1e-9) for first, second in times])
    return Comparison(sides[0], sides[1], ratio, describe(), command)
