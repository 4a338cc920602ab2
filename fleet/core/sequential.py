# SPDX-License-Identifier: Apache-2.0
"""Statistics that may be looked at whenever one likes: boundaries and e-values that hold at all times together.

A test with a fixed threshold, looked at each minute, is wrong in the end with certainty. Two tools here are not:

1. Robbins' normal mixture. A sum of t unit normals stays below sqrt((t + ρ) (log((t + ρ)/ρ) + 2 log(1/α))) at *all*
   times t with probability ≥ 1 − α. Divided by sqrt(t) it is a threshold for z-scores that grows so slowly that it
   costs about two fifths more width than a single look at 1 %. ρ says at which t it is tightest.
2. An e-value for two streams of rare events. Given that an event happens, it comes from stream 1 with probability q
   (its share of the exposure) if the rates are alike; the likelihood ratio against a mixture of higher rates is a
   martingale, and exceeds 1/α with probability ≤ α however often it is looked at (Ville's inequality).

Reference:
    Robbins, "Statistical methods related to the law of the iterated logarithm", 1970;
    Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", 2021;
    Turner, Ly, Grünwald, "Generic e-variables for exact sequential k-sample tests", 2024
"""

import math
from functools import lru_cache
from typing import Final

from edge_contract.tails import chi2_sf, student_quantile

__all__ = ["looks_threshold", "rare_events_e_value", "student_threshold"]

_TIGHTEST_AT: Final = 60.0
"""Looks are at their best after so many intervals: an hour of minutes."""

_RATIOS: Final = (4.0, 16.0, 64.0, 256.0)
"""Higher rates that the mixture bets on, in equal parts."""


def looks_threshold(t: float, alpha: float) -> float:
    """Return the z-score that a sum of t unit normals exceeds at no time, up to probability alpha.

    Args:
        t: How many independent intervals have been seen, ≥ 1.
        alpha: Probability of ever exceeding it, on one side, below 0.5.

    Example:
        >>> round(looks_threshold(60, 0.01), 2), round(looks_threshold(600, 0.01), 2)
        (3.35, 3.55)
    """
    # A half-normal mixture over drifts > 0: M = 2 Φ(s) sqrt(ρ/(t + ρ)) exp(s²/2), s = S / sqrt(t + ρ), is a
    # martingale; M ≥ 1/α needs at least s² = log((t + ρ)/ρ) + 2 log(1/(2 α Φ)), where Φ is at least Φ(s) at t = 0.
    least = math.sqrt(2 * math.log(1 / (2 * alpha)))
    wide = 2 * math.log(1 / (2 * alpha * (1 - chi2_sf(least * least, 1) / 2)))
    rho = _TIGHTEST_AT / (wide + math.log(1 + wide))
    t = max(t, 1.0)
    return math.sqrt((1 + rho / t) * (math.log(1 + t / rho) + wide))


@lru_cache(maxsize=4096)
def student_threshold(z: float, df: int) -> float:
    """Return the t-score that is as unlikely as a z-score: few devices know little of their spread.

    Example:
        >>> round(student_threshold(3.0, 10), 2), round(student_threshold(3.0, 1000), 2)
        (3.96, 3.01)
    """
    return student_quantile(chi2_sf(z * z, 1) / 2, df)


def rare_events_e_value(treated: int, control: int, share: float) -> float:
    """Return the evidence that events are more frequent in the treated stream than in the control stream.

    Args:
        treated: Events there.
        control: Events in the other stream.
        share: The treated stream's part of the whole exposure, 0 .. 1.

    Returns:
        1 = none; above 1/alpha the rates differ, at level alpha, whenever one looks.

    Example:
        >>> rare_events_e_value(0, 0, 0.1), rare_events_e_value(4, 0, 0.1) > 100, rare_events_e_value(1, 9, 0.1) < 1
        (1.0, True, True)
    """
    if not 0 < share < 1:
        return 1.0

    def bet(ratio: float) -> float:
        mixed = share * ratio + 1 - share
        log = treated * math.log(ratio / mixed) - control * math.log(mixed)
        return math.exp(min(log, 700.0))

    return sum(map(bet, _RATIOS)) / len(_RATIOS)
