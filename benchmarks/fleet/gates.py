# SPDX-License-Identifier: Apache-2.0
"""Simulated rollouts against the gate: how often it stops a harmless bundle, and how fast it finds a bad one.

``python -m benchmarks.fleet.gates`` prints the table. Each simulated fleet has devices of their own speed and error
rate; latency rows follow the day, a slow walk of each device, neighbours that resemble each other, and spikes. The
gate looks at each fleet again and again over hours, and one stop anywhere counts.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.fleet.gate_windows import ROWS_OF_A_WINDOW, SimulatedWindows
from benchmarks.fleet.header import header
from fleet.core.evidence import DeviceEvidence, Moments, Span
from fleet.core.gate_limits import GateLimits
from fleet.core.gates import judge_wave

__all__ = ["SCENARIOS", "Scenario", "Told", "main", "run"]

Array = NDArray[Any]
BEFORE_ROWS: Final = 180
_PER_MINUTE: Final = 120


@dataclass(frozen=True)
class Scenario:
    """A fleet and what the new bundle does to it.

    Attributes:
        treated, controls: Devices.
        slower: Growth of every latency; 0.1 = 10 %.
        errors: Growth of the share of failed inferences.
        resemblance: Correlation of neighbouring rows.
        wander: Standard deviation of a device's slow walk over the time that is looked at.
        crashes: Crashes per device and day; of updated devices times ``crash_ratio``.
        lost: Loss of accuracy, as drift windows estimate it; 0.05 = 5 points.
        drifted: Growth of how unlike their reference the windows are, in deviations of z.
    """

    name: str
    treated: int = 5
    controls: int = 50
    slower: float = 0.0
    errors: float = 0.0
    resemblance: float = 0.6
    wander: float = 0.02
    crashes: float = 0.05
    crash_ratio: float = 1.0
    rows: int = 240
    lost: float = 0.0
    drifted: float = 0.0


SCENARIOS: Final = (
    Scenario("harmless, canary of 5"),
    Scenario("harmless, canary of 1", treated=1),
    Scenario("harmless, rows resemble (.9)", resemblance=0.9, wander=0.04),
    Scenario("harmless, 3 controls", controls=3),
    Scenario("harmless, no controls", controls=0),
    Scenario("p95 + 10 %, canary of 5", slower=0.1),
    Scenario("p95 + 10 %, canary of 10", treated=10, slower=0.1),
    Scenario("errors + 2 points, canary of 5", errors=0.02),
    Scenario("errors + 2 points, canary of 1", treated=1, errors=0.02),
    Scenario("p95 + 50 %, no controls", controls=0, slower=0.5),
    Scenario("crashes .2 → 6 a day, canary of 10", treated=10, crash_ratio=30.0, crashes=0.2),
    Scenario("accuracy − 5 points, canary of 5", lost=0.05, rows=720),
    Scenario("accuracy − 5 points, canary of 10", treated=10, lost=0.05),
    Scenario("windows drift by 4 deviations, canary of 5", drifted=4.0, rows=720),
    Scenario("harmless, twelve hours", rows=720),
)


@dataclass(frozen=True)
class Told:
    """What happened: stops among runs, and after how many rows (median)."""

    scenario: Scenario
    runs: int
    stopped: int
    median_rows: float

    @property
    def share(self) -> float:
        return self.stopped / self.runs

    def bound(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        z, n, p = 1.96, self.runs, self.share
        middle, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)


class _Fleet:
    """One drawn fleet: rows of every device, before and after, and their running sums."""

    def __init__(self, one: Scenario, rng: np.random.Generator) -> None:
        self.one, n, length = one, one.treated + one.controls, BEFORE_ROWS + one.rows
        r = one.resemblance
        noise = rng.standard_normal((n, length)) * 0.06 * math.sqrt(1 - r * r)
        for t in range(1, length):
            noise[:, t] += r * noise[:, t - 1]
        day = 0.1 * np.sin(np.linspace(0, rng.uniform(1, 6), length) + rng.uniform(0, 6))
        walk = np.cumsum(rng.standard_normal((n, length)), axis=1) * one.wander / math.sqrt(length)
        spikes = rng.exponential(0.3, (n, length)) * (rng.random((n, length)) < 0.01)
        latency = rng.normal(9.0, 0.4, (n, 1)) + day + walk + noise + spikes
        latency[: one.treated, BEFORE_ROWS:] += math.log1p(one.slower)
        rate = rng.gamma(0.5, 0.01, (n, 1)).clip(0, 0.3) * np.exp(0.3 * rng.standard_normal((n, length)))
        rate[: one.treated, BEFORE_ROWS:] += one.errors
        failed = rng.binomial(_PER_MINUTE, rate.clip(0, 0.9))
        self.latency, self.failed = latency, failed.cumsum(axis=1)
        crash = np.full(n, one.crashes / 1440)
        before = rng.geometric(crash) <= BEFORE_ROWS
        crash[: one.treated] *= one.crash_ratio
        self.crash_before, self.crash_at = before, rng.geometric(crash)
        sizes = (n, one.treated, BEFORE_ROWS // ROWS_OF_A_WINDOW, one.rows // ROWS_OF_A_WINDOW)
        self.windows = SimulatedWindows(sizes, one.lost, one.drifted, rng)
        self.sums = [_running(latency[:, :BEFORE_ROWS]), _running(latency[:, BEFORE_ROWS:])]

    def at(self, rows: int) -> list[DeviceEvidence]:
        """The evidence after so many rows."""
        before = self.windows.add(self._spans(0, BEFORE_ROWS, self.crash_before), 0, BEFORE_ROWS)
        after = self.windows.add(self._spans(1, rows, self.crash_at <= rows), 1, rows)
        pairs = zip(before, after, strict=True)
        return [DeviceEvidence(f"d{i}", i < self.one.treated, b, a) for i, (b, a) in enumerate(pairs)]

    def _spans(self, part: int, rows: int, crashed: Array) -> list[Span]:
        sums, squares, lagged = (column[:, rows - 1].tolist() for column in self.sums[part])
        start, end = part * BEFORE_ROWS, part * BEFORE_ROWS + rows - 1
        first = self.latency[:, start].tolist()
        last = (self.latency[:, end] - self.latency[:, start]).tolist()
        failed = self.failed[:, end] - (self.failed[:, BEFORE_ROWS - 1] if part else 0)
        spans = []
        for i, bad in enumerate(failed.tolist()):
            moments = Moments(rows, first[i], last[i], sums[i], squares[i], lagged[i])
            good = _PER_MINUTE * rows - bad
            spans.append(Span(60.0 * rows, good, bad, moments, moments, crashed=bool(crashed[i])))
        return spans


def _running(values: Array) -> tuple[Array, Array, Array]:
    values = values - values[:, :1]
    lagged = np.zeros_like(values)
    lagged[:, 1:] = values[:, 1:] * values[:, :-1]
    return values.cumsum(axis=1), (values * values).cumsum(axis=1), lagged.cumsum(axis=1)


def run(scenario: Scenario, runs: int, *, seed: int = 0, every: int = 5, limits: GateLimits | None = None) -> Told:
    """Look at many fleets and return how many the gate stopped."""
    limits = limits or GateLimits()
    stops = []
    for number in range(runs):
        fleet = _Fleet(scenario, np.random.default_rng((seed, number)))
        looks = range(limits.min_rows, scenario.rows + 1, every)
        found = next((rows for rows in looks if judge_wave(fleet.at(rows), limits).decision == "fail"), None)
        if found is not None:
            stops.append(found)
    return Told(scenario, runs, len(stops), float(np.median(stops)) if stops else math.nan)


def _line(told: Told) -> str:
    low, high = told.bound()
    when = f"{told.median_rows:.0f} rows" if told.stopped else "–"
    return (
        f"| {told.scenario.name} | {told.stopped} of {told.runs} | {told.share:.2%} [{low:.2%}, {high:.2%}] | {when} |"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    begun = time.monotonic()
    print("\n".join(header("benchmarks.fleet.gates", words)))
    print("| fleet | stopped | share [95 %] | median |\n|---|---:|---:|---:|")
    for scenario in SCENARIOS:
        print(_line(run(replace(scenario), asked.runs, seed=asked.seed)), flush=True)
    spent = time.monotonic() - begun
    print(f"\nA look every 5 rows (a row a minute) over 4 h; {spent:.0f} s")


if __name__ == "__main__":
    main()
