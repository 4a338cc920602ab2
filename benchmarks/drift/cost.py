# SPDX-License-Identifier: Apache-2.0
"""What a window costs: bytes of its summary on the wire, and microseconds of processor time for each inference."""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from time import process_time_ns
from typing import Any, Final

import numpy as np

from benchmarks.drift.coded import count
from benchmarks.drift.judged import summary_of
from benchmarks.drift.material import FULL, QUICK, Material, digits, fashion
from benchmarks.drift.results import run
from edge_agent.runner.observe import Observer
from edge_contract.counts import MAX_SLOTS, Counters
from edge_contract.profile import ReferenceProfile

__all__ = ["GOALS", "largest", "lines", "main", "measure", "sizes", "updates"]

GOALS: Final = {"p99": 512, "most": 2048, "update_us": 20.0}
WINDOWS: Final = (100, 200, 500, 1000)
SUB_SAMPLES: Final = 2000


def sizes(material: Material, windows: int, random: np.random.Generator) -> list[int]:
    """Return the bytes of summaries of windows of 100 to 1000 samples, with their CUSUMs and times."""
    coded, found = material.coded("null"), []
    for number in range(windows):
        n = WINDOWS[number % len(WINDOWS)]
        counters = count(coded, random.choice(len(coded), n, replace=False))
        times = np.bincount(np.clip(np.rint(random.normal(12, 1.5, n)), 0, 31).astype(int), minlength=32).tolist()
        counters = replace(counters, latency=tuple(times), latency_sum_us=2000 * n)
        summary = replace(summary_of(material.profile, counters, number), cusum=tuple(random.uniform(0, 9, 7)))
        found.append(len(summary.encode()))
    return found


def largest() -> int:
    """Return the bytes of the largest window there can be: 64 class slots, every count near a million."""
    vector = [1_000_000] * Counters.length(MAX_SLOTS)
    counters = Counters.from_vector(MAX_SLOTS, vector)
    profile = ReferenceProfile.blank(tuple(str(i) for i in range(1000)))
    return len(summary_of(profile, counters, 1).encode())


def updates(profile: ReferenceProfile, material: Material, side: int, *, images: bool, rounds: int) -> list[float]:
    """Return the microseconds of processor time of ``observe``: means of rounds of 2000 inferences, batches and all."""
    seen, raw = material.pools["null"], np.random.default_rng(2).integers(0, 256, (64, side, side), dtype=np.uint8)
    found = []
    for _ in range(rounds):
        observer, rows = Observer(profile), range(SUB_SAMPLES)
        began = process_time_ns()
        for i in rows:
            observer.observe(seen.logits[i], seen.embedding[i], raw[i % 64] if images else None, 900.0)
        observer.counters()
        found.append((process_time_ns() - began) / SUB_SAMPLES / 1000)
    return found


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return bytes and microseconds."""
    random, rounds = np.random.default_rng(61), 3 if quick else 15
    materials = [digits(0, QUICK)] if quick else [digits(0, FULL), fashion()]
    bytes_ = {material.name: sizes(material, 100 if quick else 1000, random) for material in materials}
    last = materials[-1]
    ways = {"without input statistics": (28, False), "28 × 28": (28, True), "96 × 96": (96, True)}
    times = {
        name: updates(last.profile, last, side, images=images, rounds=rounds) for name, (side, images) in ways.items()
    }
    return {
        "bytes": {
            name: {"median": statistics.median(one), "p99": float(np.quantile(one, 0.99)), "most": max(one)}
            for name, one in bytes_.items()
        },
        "largest": largest(),
        "update_us": {name: {"median": statistics.median(one), "all": one} for name, one in times.items()},
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return sizes and times."""
    out = []
    for name, one in found["bytes"].items():
        out.append(
            f"summary, {name}: median {one['median']:.0f}, 99 % up to {one['p99']:.0f}, most {one['most']} bytes"
        )
    out.append(f"largest window of 64 class slots: {found['largest']} bytes; goals {GOALS['p99']} and {GOALS['most']}")
    for name, one in found["update_us"].items():
        spread = f"[{min(one['all']):.1f}, {max(one['all']):.1f}] of {len(one['all'])} rounds"
        out.append(f"one inference, {name}: median {one['median']:.1f} µs {spread}")
    return out


def main() -> None:
    """Measure and print."""
    run("cost", measure, lines, what="Bytes and microseconds.")


if __name__ == "__main__":
    main()
