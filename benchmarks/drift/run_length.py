# SPDX-License-Identifier: Apache-2.0
"""How many windows a healthy device lives through until an alarm: by Markov chain, and by long runs."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from edge_contract.alarm_rate import CUSUM_RUN_LENGTH, DEFAULT, JUDGED, run_length

__all__ = ["GOAL", "chain", "lines", "long_run", "measure", "steps"]

GOAL: Final = 8760
"""Hourly windows of a year, over all channels."""
SLACK, LOWEST, HIGHEST = 0.5, -3.0, 6.0

Array = NDArray[Any]


def chain(limit: float, states: int = 1200) -> float:
    """Return ARL0 of one CUSUM of standard normal scores cut to -3 … 6: mean steps of a Markov chain to absorption.

    Example:
        >>> round(chain(4.0, 200))
        335

    Reference:
        Brook, D., Evans, D. A. (1972). An approach to the probability distribution of CUSUM run length. Biometrika 59.
    """
    edges = np.linspace(0.0, limit, states + 1)
    start = np.append(0.0, (edges[1:] + edges[:-1]) / 2)
    z = edges[None] - start[:, None] + SLACK
    upto = np.where(z < LOWEST, 0.0, np.where(z >= HIGHEST, 1.0, norm.cdf(z)))
    moves = np.concatenate([upto[:, :1], np.diff(upto, axis=1)], axis=1)
    return float(np.linalg.solve(np.eye(states + 1) - moves, np.ones(states + 1))[0])


def steps(values: Array, p: Array, cap: float) -> Array:
    """Return ``cusum_step`` of many CUSUMs at once [n]."""
    found: Array = np.clip(values + _scores(p) - SLACK, 0.0, cap)
    return found


def _scores(p: Array) -> Array:
    with np.errstate(divide="ignore"):
        found: Array = norm.isf(p).clip(LOWEST, HIGHEST)
    return found


def long_run(p: Array, limit: float, *, runs: int, length: int, random: np.random.Generator) -> tuple[int, int]:
    """Return how many of ``runs`` devices ever alarmed within ``length`` windows, and the windows seen before that.

    Args:
        p: p-values of windows of a healthy device [windows, channels]; drawn again, a window's channels together.
        limit: Of the CUSUMs.
        runs, length: Devices, and windows of each.
        random: Where the randomness comes from.
    """
    values, alive, seen, z = np.zeros((runs, p.shape[1])), np.ones(runs, dtype=bool), 0, _scores(p) - SLACK
    for _ in range(length):
        values = np.clip(values + z[random.integers(0, len(z), runs)], 0.0, limit + 2)
        seen += int(alive.sum())
        alive &= values.max(axis=1) < limit
    return int((~alive).sum()), seen


def measure(p: Array, *, quick: bool, random: np.random.Generator) -> dict[str, Any]:
    """Return run lengths of the table, of its Markov chain, and of long runs of real and of uniform p-values."""
    runs, length = (50, 1000) if quick else (500, 20_000)
    uniform = random.random((20_000, JUDGED))
    found = {"chain": {f"{h:g}": chain(h, 300 if quick else 1200) for h, _ in CUSUM_RUN_LENGTH[:8]}}
    alarmed, seen = long_run(uniform, 6.0, runs=runs, length=1000, random=random)
    real, healthy = long_run(p, DEFAULT.cusum, runs=runs, length=length, random=random)
    return {
        **found,
        "bound": run_length(DEFAULT.cusum) / JUDGED,
        "uniform": {"limit": 6.0, "runs": runs, "alarmed": alarmed, "mean": seen / max(1, alarmed)},
        "uniform_bound": run_length(6.0) / JUDGED,
        # No alarm in N windows: the rate is below 3/N with 95 % confidence.
        "real": {"runs": runs, "windows": healthy, "alarmed": real, "at_least": healthy / (real or 3.0)},
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return run lengths for people."""
    table = ", ".join(f"{h}: {value:,.0f}" for h, value in found["chain"].items())
    uniform, real = found["uniform"], found["real"]
    heard = f"{uniform['mean']:,.0f} windows to an alarm ({uniform['alarmed']} alarms)"
    lived = f"{real['alarmed']} alarms in {real['windows']:,} windows"
    return [
        f"ARL0 of one CUSUM by its limit, Markov chain: {table}",
        f"six channels of uniform p, limit {uniform['limit']:g}: {heard}; the bound says {found['uniform_bound']:,.0f}",
        f"family at the default limit 10: at least {found['bound']:,.0f} windows by the bound; goal {GOAL:,}",
        f"real null windows, {real['runs']} devices: {lived}; run length at least {real['at_least']:,.0f}",
    ]
