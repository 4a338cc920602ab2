# SPDX-License-Identifier: Apache-2.0
"""How far the accuracy estimated without labels is from the true one, where the gate says valid and where it refuses.

Windows of 500: digits and Fashion-MNIST under every shift at a tenth, half and all of the samples, MNIST against
scikit-learn's digits, and the smartwatch's people and wrists. The aim is a mean error of at most 8 points where valid.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from benchmarks.drift.coded import count, joined
from benchmarks.drift.judged import mixture, summary_of
from benchmarks.drift.material import FULL, QUICK, Material, digits, fashion
from benchmarks.drift.real_material import mnist, watch
from benchmarks.drift.results import run
from edge_contract.findings import DriftState
from edge_contract.verdict import judge

__all__ = ["GOAL_POINTS", "lines", "main", "measure", "tried"]

GOAL_POINTS: Final = 8.0
SAMPLES: Final = 500
FRACTIONS: Final = (0.1, 0.5, 1.0)
_NO_SHIFT: Final = frozenset({"calibration", "reference", "halves"})


def tried(
    material: Material, pool: str, fraction: float, windows: int, random: np.random.Generator
) -> list[list[float]]:
    """Return [estimated, true, valid, low ≤ true ≤ high] of windows with this share from a pool, the rest healthy."""
    null, shifted = material.pools["null"], material.pools[pool]
    both, right = joined(material.coded("null"), material.coded(pool)), np.concatenate([null.right, shifted.right])
    found = []
    for number in range(windows):
        rows = mixture(random, len(null), len(shifted), SAMPLES, fraction)
        verdict, _ = judge(material.profile, summary_of(material.profile, count(both, rows), number), DriftState())
        if verdict.estimated_accuracy is None or verdict.low is None or verdict.high is None:
            continue
        true = float(right[rows].mean())
        held = verdict.low <= true <= verdict.high
        found.append([verdict.estimated_accuracy, true, float(verdict.valid), float(held)])
    return found


def _materials(quick: bool) -> Iterator[Material]:  # noqa: FBT001
    yield digits(0, QUICK if quick else FULL)
    if not quick:
        yield from (fashion(), mnist(), watch())


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return mean errors by material and shift."""
    random, windows, cells = np.random.default_rng(53), 4 if quick else 20, {}
    for material in _materials(quick):
        for pool in (name for name in material.pools if name not in _NO_SHIFT):
            for fraction in FRACTIONS if pool != "null" else (0.0,):
                rows = np.array(tried(material, pool, fraction, windows, random))
                unchanged = np.abs(material.profile.accuracy - rows[:, 1])
                cells[f"{material.name}: {pool}, {fraction:g}"] = {
                    "true": float(rows[:, 1].mean()),
                    "estimated": float(rows[:, 0].mean()),
                    "errors": np.abs(rows[:, 0] - rows[:, 1]).tolist(),
                    "unchanged": unchanged.tolist(),
                    "valid": rows[:, 2].tolist(),
                    "held": rows[:, 3].tolist(),
                }
    return {"cells": cells, "windows": windows}


def _pooled(cells: Mapping[str, Any], name: str, valid: float) -> list[float]:
    pairs = ((v, e) for cell in cells.values() for v, e in zip(cell["valid"], cell[name], strict=True))
    return [e for v, e in pairs if v == valid]


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table, and the mean errors."""
    cells = found["cells"]
    out = ["window of 500                                      true  estimated  error  valid"]
    for name, one in cells.items():
        error, valid = 100 * float(np.mean(one["errors"])), float(np.mean(one["valid"]))
        out.append(f"{name:<50}{100 * one['true']:6.1f}{100 * one['estimated']:9.1f}{error:9.1f}{valid:7.2f}")
    for valid, word in ((1.0, "valid"), (0.0, "refused")):
        errors, unchanged, held = (_pooled(cells, key, valid) for key in ("errors", "unchanged", "held"))
        if errors:
            what = (
                f"mean error {100 * np.mean(errors):.1f} points, {100 * np.mean(unchanged):.1f} if nothing had changed"
            )
            far = f"nine in ten below {100 * np.quantile(errors, 0.9):.1f}"
            out.append(f"{word}: {len(errors)} windows, {what}; {far}; interval held {100 * np.mean(held):.0f} %")
    return out


def main() -> None:
    """Measure and print."""
    run("accuracy", measure, lines, what="Error of the estimated accuracy.")


if __name__ == "__main__":
    main()
