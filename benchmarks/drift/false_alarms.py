# SPDX-License-Identifier: Apache-2.0
"""How often windows without drift are called strange, and how long a healthy device runs until an alarm.

Per window: the share with a family p-value below the nominal 1 %, which should lie in 0.3 % to 2 %: independent
samples of digits and Fashion-MNIST, and streams in which a sample resembles the one before; these are judged by
``judge``, which waits until it has 64 effective samples. Run length: the CUSUM's Markov chain, and a long run of real
null windows, drawn again with their channels together.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift import run_length
from benchmarks.drift.coded import Coded, count
from benchmarks.drift.judged import channel_p, channels_of, share, summary_of
from benchmarks.drift.material import FULL, QUICK, Material, digits, fashion
from benchmarks.drift.plot import calibration_plot
from benchmarks.drift.results import RESULTS, run
from benchmarks.drift.streams import autoregressive, held
from edge_contract.channels import evidence
from edge_contract.findings import DriftState, Level
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import holm
from edge_contract.verdict import judge

__all__ = ["BAND", "SIZES", "judged_stream", "lines", "main", "measure", "null_windows"]

SIZES: Final = (64, 100, 200, 500, 1000)
BAND: Final = (0.003, 0.02)
LEVEL: Final = 0.01
PLOT: Final = "null-calibration.svg"

Array = NDArray[Any]


def null_windows(material: Material, n: int, windows: int, random: np.random.Generator) -> dict[str, Array]:
    """Return channel → p-values of null windows of n independent samples; ``family`` beside them."""
    coded, found = material.coded("null"), dict[str, list[float]]()
    for _ in range(windows):
        counters = count(coded, random.choice(len(coded), n, replace=False))
        p = channel_p(material.profile, counters)
        p["family"] = min(holm(p).values())
        for name, value in p.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def judged_stream(
    profile: ReferenceProfile, coded: Coded, rows: Callable[[int], Array], decisions: int, n: int = 200
) -> dict[str, Any]:
    """Judge windows of a stream, one after the other, until so many were decided.

    Args:
        profile: The reference.
        coded: The pool.
        rows: Length → the next rows of the stream.
        decisions: Windows with a verdict other than "wait".
        n: Samples of a window.
    """
    state, family, alarms, number, samples = DriftState(), list[float](), 0, 0, list[float]()
    while len(family) < decisions and number < 200 * decisions:
        number += 1
        verdict, after = judge(profile, summary_of(profile, count(coded, rows(n)), number), state)
        if after.windows > state.windows:
            family.append(verdict.p_family)
            samples.append(verdict.n_eff)
            alarms += verdict.level is Level.ALARM
        state = after
    p = np.array(family or [1.0])
    return {
        "false_alarms": vars(share(p < LEVEL)),
        "warned": vars(share(p < 1e-3)),
        "alarmed": alarms,
        "windows": number,
        "decided": len(family),
        "n_eff": float(np.median(samples)) if samples else 0.0,
    }


def _streams(material: Material, decisions: int, random: np.random.Generator) -> dict[str, Any]:
    coded, group = material.coded("null"), material.pools["null"].group

    def free(n: int) -> Array:
        return random.choice(len(coded), n, replace=False)

    found = {"independent": judged_stream(material.profile, coded, free, decisions)}
    for rho in (0.5, 0.9):
        tied = partial(autoregressive, random, coded, rho=rho)
        found[f"AR(1) of the energy, ρ = {rho}"] = judged_stream(material.profile, coded, tied, decisions)
        if len(np.unique(group)) < len(group):
            again = partial(held, random, group, rho=rho)
            found[f"the same image again with probability {rho}"] = judged_stream(
                material.profile, coded, again, decisions
            )
    return found


def _scores(material: Material, n: int, windows: int, random: np.random.Generator) -> Array:
    """Return the p-values that the CUSUMs are fed with, of null windows [windows, channels]."""
    coded, found = material.coded("null"), []
    for _ in range(windows):
        rows = random.choice(len(coded), n, replace=False)
        parts = evidence(material.profile, count(coded, rows), 1.0)
        found.append([1.0 if (part := parts[name]) is None else part.p_beyond for name in channels_of(parts)])
    return np.array(found)


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return false alarms per size of window and per stream, and run lengths."""
    random, many = np.random.default_rng(23), 300 if quick else 2000
    materials = [digits(0, QUICK)] if quick else [digits(0, FULL), fashion()]
    found: dict[str, Any] = {"independent": {}, "streams": {}}
    curves = {}
    for material in materials:
        for n in SIZES:
            p = null_windows(material, n, many, random)
            shares = {name: vars(share(values < LEVEL)) for name, values in p.items()}
            found["independent"].setdefault(material.name, {})[str(n)] = shares
            curves[f"{material.name}, n = {n}"] = p["family"]
        found["streams"][material.name] = _streams(material, many // 10 if quick else many, random)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        calibration_plot(curves, RESULTS / PLOT)
    found["run_length"] = run_length.measure(_scores(materials[0], 200, many, random), quick=quick, random=random)
    return found


def _held(one: Mapping[str, Any]) -> str:
    return "held" if BAND[0] <= one["share"] <= BAND[1] else "missed"


def _percent(one: Mapping[str, Any]) -> str:
    return f"{100 * one['share']:.2f} % [{100 * one['low']:.2f}, {100 * one['high']:.2f}]"


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the tables."""
    out = [f"family p < 1 % on windows without drift; aim {100 * BAND[0]:.1f} % to {100 * BAND[1]:.0f} %"]
    for name, sizes in found["independent"].items():
        for n, rows in sizes.items():
            others = ", ".join(f"{k} {100 * one['share']:.1f}" for k, one in rows.items() if k != "family")
            out.append(f"  {name}, n = {n}: {_percent(rows['family'])} {_held(rows['family'])}; single: {others}")
    for name, rows in found["streams"].items():
        for stream, one in rows.items():
            windows = f"{one['decided']} verdicts on {one['windows']} windows of 200, {one['n_eff']:.0f} effective"
            out.append(f"  {name}, {stream}: {_percent(one['false_alarms'])} of {windows}; {one['alarmed']} in alarm")
    return out + run_length.lines(found["run_length"])


def main() -> None:
    """Measure and print."""
    run("false_alarms", measure, lines, what="False alarms per window, and run lengths.")


if __name__ == "__main__":
    main()
