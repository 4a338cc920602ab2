# SPDX-License-Identifier: Apache-2.0
"""How often one window of a shift is noticed: the digits protocol of the specification (A3).

Eleven shifts, each at a tenth, half and all of the window's samples. The threshold is the 1 % quantile of null windows
from a pool of their own; the share of false alarms at it is taken from another null pool. Printed too: the power at
the nominal 1 %, which is what a device has.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import count, joined
from benchmarks.drift.judged import family_p, knocked_out, mixture, share, window_p
from benchmarks.drift.material import FULL, QUICK, Material, digits
from benchmarks.drift.results import run
from benchmarks.drift.shifts import DIGITS
from edge_contract.counts import Counters

__all__ = ["FRACTIONS", "KNOCK_OUT", "SIZES", "TARGETS", "lines", "main", "measure", "powers", "source"]

FRACTIONS: Final = (0.1, 0.5, 1.0)
SIZES: Final = (50, 100, 200, 500, 1000)
LEVEL: Final = 0.01
TARGETS: Final = {"n=200, fraction 1": 0.85, "n=200, fraction 0.5": 0.78, "n=200, all": 0.60, "n=1000, all": 0.78}
KNOCK_OUT: Final = "knock-out 0"

Array = NDArray[Any]


def _null(material: Material, pool: str, n: int, windows: int, random: np.random.Generator) -> Array:
    coded = material.coded(pool)
    return window_p(material.profile, coded, [random.choice(len(coded), n, replace=False) for _ in range(windows)])


def source(material: Material, shift: str) -> Callable[[np.random.Generator, int, float], Counters]:
    """Return what draws a window: (random, n, fraction) → the counters of n samples, this share of them shifted."""
    null, seen = material.coded("null"), material.pools["null"]
    if shift == KNOCK_OUT:
        return lambda random, n, fraction: count(null, knocked_out(random, seen, n, fraction))
    both = joined(null, material.coded(shift))
    shifted = len(both) - len(null)
    return lambda random, n, fraction: count(both, mixture(random, len(null), shifted, n, fraction))


def powers(
    material: Material, n: int, windows: int, thresholds: tuple[float, ...], random: np.random.Generator
) -> dict[str, dict[float, list[float]]]:
    """Return shift → fraction → share of windows of n samples with a family p-value below each threshold."""
    found: dict[str, dict[float, list[float]]] = {}
    for name in (*DIGITS, KNOCK_OUT):
        draw, rows = source(material, name), found.setdefault(name, {})
        for fraction in FRACTIONS:
            p = np.array([family_p(material.profile, draw(random, n, fraction)) for _ in range(windows)])
            rows[fraction] = [float((p < threshold).mean()) for threshold in thresholds]
    return found


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return thresholds, false alarms and powers for each size of window."""
    material, random = digits(0, QUICK if quick else FULL), np.random.default_rng(31)
    sizes, nulls, windows = ((200,), 300, 20) if quick else (SIZES, 2000, 300)
    found: dict[str, Any] = {"reference": material.profile.size, "accuracy": material.profile.accuracy, "sizes": {}}
    for n in sizes:
        threshold = float(np.quantile(_null(material, "calibration", n, nulls, random), LEVEL))
        p = _null(material, "null", n, nulls, random)
        cells = powers(material, n, windows, (threshold, LEVEL), random)
        found["sizes"][str(n)] = {
            "threshold": threshold,
            "false_alarms": vars(share(p < threshold)),
            "false_alarms_nominal": vars(share(p < LEVEL)),
            "windows": windows,
            "mean": {kind: _means(cells, i) for i, kind in enumerate(("calibrated", "nominal"))},
            "cells": {
                name: {f"{fraction:g}": values for fraction, values in row.items()} for name, row in cells.items()
            },
        }
    return found


def _means(cells: Mapping[str, Mapping[float, list[float]]], which: int) -> dict[str, float]:
    by = {f"{f:g}": float(np.mean([row[f][which] for row in cells.values()])) for f in FRACTIONS}
    return {**by, "all": float(np.mean(list(by.values())))}


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table of means, and the cells for windows of 200."""
    out = [
        f"digits, reference {found['reference']}, accuracy {found['accuracy']:.3f}; mean power of eleven shifts, 1 %",
        "n      false alarms         calibrated: .1   .5   1    all    nominal: .1   .5   1    all",
    ]
    for n, row in found["sizes"].items():
        alarms = row["false_alarms"]
        cells = ["  ".join(f"{row['mean'][kind][f]:.2f}" for f in ("0.1", "0.5", "1", "all")) for kind in row["mean"]]
        span = f"{100 * alarms['share']:.2f} % [{100 * alarms['low']:.2f}, {100 * alarms['high']:.2f}]"
        out.append(f"{n:<6} {span:<21}{'':12}{cells[0]}          {cells[1]}")
    for name, row in found["sizes"].get("200", {}).get("cells", {}).items():
        out.append(
            f"  n = 200, {name:<22}" + "  ".join(f"{fraction}: {values[0]:.2f}" for fraction, values in row.items())
        )
    out += [f"target {name} ≥ {goal:.2f}: {_at(found, name)}" for name, goal in TARGETS.items()]
    return out


def _at(found: Mapping[str, Any], name: str) -> str:
    n, part = name.removeprefix("n=").split(", ")
    row = found["sizes"].get(n)
    return f"{row['mean']['calibrated'][part.removeprefix('fraction ')]:.3f}" if row else "not measured"


def main() -> None:
    """Measure and print."""
    run("power", measure, lines, what="Power on the digits protocol.")


if __name__ == "__main__":
    main()
