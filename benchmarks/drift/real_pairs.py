# SPDX-License-Identifier: Apache-2.0
"""Real sources that differ must alarm; random halves of one source must not.

Streams are in the order of recording, in windows of 200, through the state machine of the device. A source that ends
begins again. The halves are cut by recording or by writer, because windows of one recording resemble each other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import Coded, code, count
from benchmarks.drift.judged import summary_of
from benchmarks.drift.material import Material, fashion
from benchmarks.drift.real_material import halves, mnist, watch
from benchmarks.drift.results import run
from edge_contract.effective import effective_reference
from edge_contract.findings import DriftState
from edge_contract.profile import ReferenceProfile
from edge_contract.verdict import judge

__all__ = ["PAIRS", "judged_in_order", "lines", "main", "measure"]

SAMPLES: Final = 200
LONGEST: Final = 60
WRITER: Final = 138
"""Images in a row that one of thirteen people wrote, about: the package keeps the order, but no names."""
PAIRS: Final = (
    (mnist, "scikit-learn digits", 10), (watch, "other wrist", 60), (watch, "unseen people", 60),
)  # fmt: skip

Array = NDArray[Any]


def judged_in_order(
    profile: ReferenceProfile, coded: Coded, windows: int, *, order: Array | None = None
) -> dict[str, Any]:
    """Judge windows of a pool in its order, again and again, and say when it alarmed (0: never).

    Args:
        profile: The reference.
        coded: The pool.
        windows: How many at most.
        order: Rows in another order.
    """
    rows, state, verdict = np.arange(len(coded)) if order is None else order, DriftState(), None
    stream = np.resize(rows, windows * SAMPLES)
    decided, least = 0, 1.0
    for number in range(1, windows + 1):
        window = stream[(number - 1) * SAMPLES : number * SAMPLES]
        verdict, after = judge(profile, summary_of(profile, count(coded, window), number), state)
        if after.windows > state.windows:
            decided, least = decided + 1, min(least, verdict.p_family)
        state = after
        if state.is_alarmed:
            break
    assert verdict is not None
    alarm = number if state.is_alarmed else 0
    said = {
        "reason": verdict.reason,
        "moved": list(verdict.moved),
        "prior": verdict.prior.kind if verdict.prior else "",
    }
    return {"alarm": alarm, "windows": number, "decided": decided, "least_p": least, "n_eff": verdict.n_eff, **said}


def _pair(material: Material, pool: str, windows: int, random: np.random.Generator) -> dict[str, Any]:
    coded, seen = material.coded(pool), material.pools[pool]
    shuffled = random.permutation(len(seen))
    return {
        "accuracy": [material.profile.accuracy, float(seen.right.mean())],
        "in order": judged_in_order(material.profile, coded, windows),
        "events": judged_in_order(material.profile, coded, 10, order=shuffled),
    }


def _halves(
    material: Material, pool: str, splits: int, random: np.random.Generator, *, block: int = 0
) -> list[dict[str, Any]]:
    """Judge one half of a pool against the profile of the other; ``block`` samples in a row are one writer's."""
    seen, found = material.pools[pool], []
    if block:
        seen = replace(seen, group=np.arange(len(seen)) // block)
    for _ in range(splits):
        profile, other = halves(seen, material.profile.labels, random)
        result = judged_in_order(profile, code(profile, other), LONGEST)
        found.append({**result, "reference": profile.size, "effective": effective_reference(profile).size})
    return found


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return what became of each pair, and of random halves."""
    random, splits = np.random.default_rng(71), 3 if quick else 12
    pairs = {f"{make().name} → {pool}": _pair(make(), pool, longest, random) for make, pool, longest in PAIRS}
    quiet = {"watch, halves by series": _halves(watch(), "halves", splits, random)}
    if not quick:
        few = splits // 4
        quiet["scikit-learn digits, halves by writer"] = _halves(
            mnist(), "scikit-learn digits", 2 * splits, random, block=WRITER
        )
        quiet["MNIST, random halves"] = _halves(mnist(), "null", few, random)
        quiet["Fashion-MNIST, random halves"] = _halves(fashion(), "calibration", few, random)
    return {"pairs": pairs, "quiet": quiet}


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what became of each pair, and of random halves."""
    out = []
    for name, one in found["pairs"].items():
        before, after = (f"{100 * value:.1f} %" for value in one["accuracy"])
        out.append(f"{name}: accuracy {before} → {after}")
        for way in ("in order", "events"):
            row = one[way]
            when = f"alarm at window {row['alarm']}" if row["alarm"] else f"no alarm in {row['windows']} windows"
            out.append(f"  {way}: {when}, {row['decided']} decided, {row['n_eff']:.0f} effective; {row['prior']}")
            out.append(f"    {'; '.join(row['moved'])}")
    for name, rows in found["quiet"].items():
        alarms, decided = sum(row["alarm"] > 0 for row in rows), sum(row["decided"] for row in rows)
        size, worth = (float(np.median([row[key] for row in rows])) for key in ("reference", "effective"))
        told = f"{decided} windows decided, least p {min(row['least_p'] for row in rows):.1g}"
        out.append(f"{name}: {alarms} of {len(rows)} splits alarmed; {told}; reference {size:.0f}, worth {worth:.0f}")
    return out


def main() -> None:
    """Measure and print."""
    run("real_pairs", measure, lines, what="Real sources that differ, and halves that do not.")


if __name__ == "__main__":
    main()
