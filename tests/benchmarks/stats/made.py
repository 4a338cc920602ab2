# SPDX-License-Identifier: Apache-2.0
"""Launches, plans and measurements whose times a test chooses."""

import numpy as np

from benchmarks.plan import BenchPlan
from benchmarks.record import ColdStart, Launch, Measurement, Preflight, Reading, RuntimeFacts

STEP_NS = 20_000_000
PI5 = Preflight("Raspberry Pi 5 Model B Rev 1.0", arch="aarch64", governor="performance", throttled=0)


def plan(**words):
    return BenchPlan(**{"artefact": "m.tflite", "sha256": "0" * 64, "format": "tflite", **words})


def readings(number, runs, *, throttled=0, khz=2_400_000, temp_c=50.0, power_mw=None, many=5):
    """Looks at the board, evenly over the runs of a launch."""
    first, span = start_of(number), runs * STEP_NS
    return tuple(Reading(first + i * span // many, temp_c, (khz,) * 4, throttled, power_mw) for i in range(1, many))


def start_of(number):
    return 10**12 + number * 60 * 10**9


def launch(number=0, times_ns=(1_000_000,) * 100, label="", **words):
    times = tuple(round(float(one)) for one in times_ns)
    starts = tuple(start_of(number) + i * STEP_NS for i in range(len(times)))
    kept = {
        "cold": ColdStart(1, 2, 3, 4),
        "warmup": 10,
        "steady": True,
        "missed": 0,
        "dropped": 0,
        "readings": readings(number, len(times)),
        "faults": {"major": 0, "minor": 3, "swap_kb": 0},
        "memory": {},
        "runtime": RuntimeFacts("litert", "2.0"),
        "timer_ns": 80.0,
        "golden": "same",
    }
    stages = {"invoke": times, "total": times}
    started = "2026-11-21T02:00:00Z"
    return Launch(number, label, started, stages_ns=stages, starts_ns=starts, **{**kept, **words})


def drawn(random, launches=10, runs=100, *, median_ns=1e6, between=0.005, within=0.02):
    """Times of launches that differ by a normal variable."""
    own = median_ns * np.exp(between * random.standard_normal((launches, 1)))
    return own * np.exp(within * random.standard_normal((launches, runs)))


def measurement(launches=None, *, board=PI5, notes=(), failed=0, **words):
    """A quiet measurement on a Pi 5, unless its launches are given."""
    if launches is None:
        times = drawn(np.random.default_rng(5))
        launches = [launch(i, one) for i, one in enumerate(times)]
    return Measurement(plan(**words), board, tuple(launches), tuple(notes), failed)
