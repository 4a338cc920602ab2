# SPDX-License-Identifier: Apache-2.0
"""Measurements of known numbers, for tests of what is made of them."""

import hashlib
import random

from benchmarks.plan import BenchPlan
from benchmarks.record import ColdStart, Launch, Measurement, Preflight, Reading, RuntimeFacts
from benchmarks.result.schema import Artifact, Quality

BODY = b"a model file"
SHA = hashlib.sha256(BODY).hexdigest()
ARTIFACT = Artifact(SHA, "tflite", len(BODY), name="digits int8", precision="int8")
QUALITY = Quality("top1", 0.9, 1000, (0.88, 0.92), True, "samples", SHA, runtime="litert 2.3.0")
BOARD = Preflight(
    "Raspberry Pi 5 Model B Rev 1.0", "bcm2712", "aarch64", 64, 8_000_000, 0, "Debian 12", "6.6.0", "3.11.2",
    "performance", {"cpu0": (1_500_000, 2_400_000, 2_400_000)}, (0, 1, 2, 3), 45.0, 0, 0.05,
)  # fmt: skip


def plan(**more):
    facts = {"runtime": "litert", "launches": 4, "runs": 200, "seconds": 0.0, "data": "/data/x/samples.npz", **more}
    return BenchPlan("/somewhere/model.tflite", SHA, "tflite", **facts)


def launch(number, *, runs=200, us=180.0, slow=1.0, golden="same", throttled=0, seed=0, gap_us=20.0, **more):
    draw = random.Random(100 * seed + number)
    at = 5_000_000_000 * (number + 1) + 123
    invoke, total, pre, post, starts = [], [], [], [], []
    for _ in range(runs):
        one = int(1000 * us * slow * draw.lognormvariate(0, 0.03))
        before, after = int(1000 * 21 * draw.lognormvariate(0, 0.05)), int(1000 * 9 * draw.lognormvariate(0, 0.05))
        invoke.append(one), pre.append(before), post.append(after)
        total.append(one + before + after + 900)
        starts.append(at)
        at += total[-1] + int(1000 * gap_us)
    span = at - starts[0]
    readings = tuple(
        Reading(starts[0] - 1000 + i * span // 5, 45.0 + number + 0.25 * i, (2_400_000, 2_399_000), throttled)
        for i in range(5)
    )
    return Launch(
        number, "", f"2026-11-21T02:00:0{number % 10}Z", ColdStart(30.0, 90.5, 4.25 + number, 1.5), 23, True,
        {"preprocess": tuple(pre), "invoke": tuple(invoke), "postprocess": tuple(post), "total": tuple(total)},
        tuple(starts), 0, 0, readings, {"major": 0, "minor": 3, "swap_kb": 0, "switches": 1},
        {"rss_peak_kb": 41_000 + number, "arena_kb": 60}, RuntimeFacts("litert", "2.3.0", ("XNNPACK",), 1.0, 1, (2,)),
        420.0, golden, 64, **more,
    )  # fmt: skip


def measurement(number=4, *, notes=(), **more):
    chosen = {key: more.pop(key) for key in ("scenario", "fps", "mode", "bundle", "profile", "batch") if key in more}
    return Measurement(plan(**chosen), BOARD, tuple(launch(i, **more) for i in range(number)), notes)
