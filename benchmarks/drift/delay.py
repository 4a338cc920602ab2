# SPDX-License-Identifier: Apache-2.0
"""How many windows of 200 pass until a shift alarms, beside the chance that one window has p < 1 %.

The aim: a shift that one window shows in 80 % of cases alarms within 5 windows in 90 % of runs. For weaker ones the
curve is printed. Digits, reference 20 000; each run begins with three windows without drift.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from benchmarks.drift.judged import family_p, summary_of
from benchmarks.drift.material import FULL, QUICK, Material, digits
from benchmarks.drift.power import KNOCK_OUT, source
from benchmarks.drift.results import run
from benchmarks.drift.shifts import DIGITS
from edge_contract.findings import DriftState
from edge_contract.verdict import judge

__all__ = ["GOAL_POWER", "GOAL_SHARE", "GOAL_WINDOWS", "delays", "lines", "main", "measure"]

GOAL_POWER, GOAL_WINDOWS, GOAL_SHARE = 0.8, 5, 0.9
SAMPLES: Final = 200
FRACTIONS: Final = (0.1, 0.2, 0.3, 0.5, 1.0)
HEALTHY: Final = 3


def delays(
    material: Material, shift: str, fraction: float, *, runs: int, longest: int, random: np.random.Generator
) -> dict[str, Any]:
    """Return the windows until an alarm in each run (0: none within ``longest``), and the power of one window."""
    draw, found = source(material, shift), list[int]()
    for _ in range(runs):
        state, alarmed = DriftState(), 0
        for number in range(1, HEALTHY + longest + 1):
            counters = draw(random, SAMPLES, fraction if number > HEALTHY else 0.0)
            _, state = judge(material.profile, summary_of(material.profile, counters, number), state)
            if number > HEALTHY and state.is_alarmed:
                alarmed = number - HEALTHY
                break
        found.append(alarmed)
    power = _power(material, shift, fraction, random)
    within = float(np.mean([0 < one <= GOAL_WINDOWS for one in found]))
    late = sorted(one or longest + 1 for one in found)
    quantiles = {f"{q:g}": late[min(len(late) - 1, int(q * len(late)))] for q in (0.5, 0.9)}
    return {"power": power, "within_goal": within, "quantiles": quantiles, "windows": found}


def _power(material: Material, shift: str, fraction: float, random: np.random.Generator, windows: int = 200) -> float:
    draw = source(material, shift)
    return float(np.mean([family_p(material.profile, draw(random, SAMPLES, fraction)) < 0.01 for _ in range(windows)]))


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return the delays of every shift and fraction."""
    material, random = digits(0, QUICK if quick else FULL), np.random.default_rng(41)
    runs, longest = (10, 10) if quick else (50, 15)
    cells = {}
    for shift in (*DIGITS, KNOCK_OUT):
        for fraction in FRACTIONS:
            found = delays(material, shift, fraction, runs=runs, longest=longest, random=random)
            cells[f"{shift}, {fraction:g}"] = found
    return {"runs": runs, "longest": longest, "reference": material.profile.size, "cells": cells}


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the curve, strongest shift first."""
    out = ["shift, fraction               power   alarm within 5   windows: median (90 %)"]
    ranked = sorted(found["cells"].items(), key=lambda item: -item[1]["power"])
    for name, one in ranked:
        late = {q: value if value <= found["longest"] else "–" for q, value in one["quantiles"].items()}
        out.append(
            f"{name:<30}{one['power']:.2f}    {one['within_goal']:.2f}             {late['0.5']} ({late['0.9']})"
        )
    strong = [one for _, one in ranked if one["power"] >= GOAL_POWER]
    kept = sum(one["within_goal"] >= GOAL_SHARE for one in strong)
    return [*out, f"power ≥ {GOAL_POWER}: {kept} of {len(strong)} cells alarm within 5 windows in 90 % of runs"]


def main() -> None:
    """Measure and print."""
    run("delay", measure, lines, what="Windows until an alarm.")


if __name__ == "__main__":
    main()
