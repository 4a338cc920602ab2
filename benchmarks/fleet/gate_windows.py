# SPDX-License-Identifier: Apache-2.0
"""Drift windows of a simulated fleet, for the gates' benchmark: one an hour, z of the family's p, estimated accuracy.

What makes devices alike and unlike: each has its own place (some see what the reference has, some do not), all of them
have one day, and each window has the error of its 200 samples.
"""

import argparse
import math
import statistics
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.fleet.header import header
from fleet.core.evidence import DeviceEvidence, Moments, Span
from fleet.core.gate_findings import Finding
from fleet.core.gate_limits import GateLimits
from fleet.core.gate_windows import judge_windows

__all__ = ["KINDS", "ROWS_OF_A_WINDOW", "Kind", "SimulatedWindows", "looked", "main", "wilson"]

ROWS_OF_A_WINDOW: Final = 60
_SAMPLES: Final = 200
_BEFORE: Final = 6
"""Windows before: what a gate looks back by default, in hours."""
_ACCURACY: Final = 0.9


class SimulatedWindows:
    """The windows of one drawn fleet.

    Args:
        sizes: Devices, of which the first are updated; windows before the update, and after it.
        lost: Loss of accuracy by the new bundle.
        drifted: Growth of z by the new bundle.
        rng: Where chance comes from.
    """

    def __init__(self, sizes: tuple[int, int, int, int], lost: float, drifted: float, rng: np.random.Generator) -> None:
        n, treated, before, after = sizes
        length = before + after
        day = np.sin(np.linspace(0, rng.uniform(1, 6), length) + rng.uniform(0, 6))
        place = rng.gamma(0.5, 1.0, (n, 1))
        z = place + 0.4 * day + rng.standard_normal((n, length))
        noise = math.sqrt(_ACCURACY * (1 - _ACCURACY) / _SAMPLES)
        accuracy = (
            _ACCURACY + 0.02 * rng.standard_normal((n, 1)) + 0.01 * day + noise * rng.standard_normal((n, length))
        )
        # Two profiles never estimate alike: each device's new one is off by half a point.
        accuracy[:treated, before:] += 0.005 * rng.standard_normal((treated, 1)) - lost
        z[:treated, before:] += drifted
        self._before, self._z, self._accuracy = before, z.clip(-3.0, 6.0), accuracy.clip(0.0, 1.0)
        self._known: dict[tuple[int, int], list[tuple[Moments, Moments, int]]] = {}

    def add(self, spans: list[Span], part: int, rows: int) -> list[Span]:
        """Return the spans with the windows that ended within so many rows."""
        count = min(rows // ROWS_OF_A_WINDOW, (self._z.shape[1] - self._before) if part else self._before)
        if (part, count) not in self._known:
            start = self._before if part else 0
            self._known[part, count] = [
                self._moments(self._z[i, start : start + count], self._accuracy[i, start : start + count])
                for i in range(len(spans))
            ]
        return [
            replace(span, windows=drift.n, unusual=unusual, drift=drift, accuracy=accuracy)
            for span, (drift, accuracy, unusual) in zip(spans, self._known[part, count], strict=True)
        ]

    @staticmethod
    def _moments(z: NDArray[Any], accuracy: NDArray[Any]) -> tuple[Moments, Moments, int]:
        valid = accuracy[z < 5.0]  # a strong shift has no valid estimate
        return Moments.of(z.tolist()), Moments.of(valid.tolist()), int((z > 3.1).sum())


@dataclass(frozen=True)
class Kind:
    """A fleet, and what the new bundle does to its windows."""

    name: str
    treated: int = 5
    controls: int = 50
    lost: float = 0.0
    drifted: float = 0.0


KINDS: Final = (
    Kind("harmless, canary of 5"),
    Kind("harmless, canary of 1", treated=1),
    Kind("harmless, 3 controls", controls=3),
    Kind("harmless, no controls", controls=0),
    Kind("accuracy − 5 points, canary of 5", lost=0.05),
    Kind("accuracy − 5 points, canary of 10", treated=10, lost=0.05),
    Kind("windows 4 deviations further, canary of 5", drifted=4.0),
)


def looked(kind: Kind, seed: int, hours: int = 12) -> dict[str, tuple[int, Finding]]:
    """Look at one drawn fleet after each hour; return the first finding that fails and its hour, by measure."""
    n = kind.treated + kind.controls
    sizes = (n, kind.treated, _BEFORE, hours)
    windows = SimulatedWindows(sizes, kind.lost, kind.drifted, np.random.default_rng((seed, 7)))
    empty, failed = [Span()] * n, dict[str, tuple[int, Finding]]()
    before = windows.add(empty, 0, _BEFORE * ROWS_OF_A_WINDOW)
    for hour in range(1, hours + 1):
        pairs = zip(before, windows.add(empty, 1, ROWS_OF_A_WINDOW * hour), strict=True)
        devices = [DeviceEvidence(f"d{i}", i < kind.treated, b, a) for i, (b, a) in enumerate(pairs)]
        for one in judge_windows(devices, GateLimits()):
            if one is not None and one.decision == "fail":
                failed.setdefault(one.measure, (hour, one))
    return failed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description="What drift windows alone do in a gate, looked at each hour for twelve."
    )
    parser.add_argument("--runs", type=int, default=1000)
    asked = parser.parse_args()
    print(*header("benchmarks.fleet.gate_windows"), sep="\n")
    print("| fleet | stopped | share [95 %] | median |\n|---|---:|---:|---:|")
    for kind in KINDS:
        found = [hours for seed in range(asked.runs) if (hours := [hour for hour, _ in looked(kind, seed).values()])]
        low, high = wilson(len(found), asked.runs)
        when = f"{statistics.median(map(min, found)):.0f} h" if found else "–"
        share = f"{len(found) / asked.runs:.2%} [{max(low, 0.0):.2%}, {high:.2%}]"
        print(f"| {kind.name} | {len(found)} of {asked.runs} | {share} | {when} |", flush=True)


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    Example:
        >>> [round(end, 4) for end in wilson(0, 1000)]
        [0.0, 0.0038]
    """
    z, p = 1.96, hits / runs
    middle, reach = p + z * z / (2 * runs), z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs))
    return (middle - reach) / (1 + z * z / runs), (middle + reach) / (1 + z * z / runs)


if __name__ == "__main__":
    main()
