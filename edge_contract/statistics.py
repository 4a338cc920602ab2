# SPDX-License-Identifier: Apache-2.0
"""Tests on counters: what device and server compute alike.

Two questions are asked of every channel, and they need two laws.

1. *Is this window unlike the reference?* A two-sample test: the reference has only m samples (often 750), so its
   own error counts: 1/n + 1/m. Its p-value is right for one window and a fresh reference.
2. *May evidence be added up over windows?* All windows of all devices are compared with the **same** reference.
   Its error is drawn once and then stays: with m = 750 an unlucky reference makes every window of a healthy device
   look a little different, and a CUSUM would add that little up to an alarm. So the CUSUM is fed with the p-value
   of a composite null: the true shift may be as large as the reference's error can be (its 99.9 % quantile,
   χ²(0.999; df)/m), plus an effect too small to matter (``IGNORED_EFFECT``). Its law is a non-central chi-square
   with λ = n_eff × (χ²(0.999; df)/m + IGNORED_EFFECT). With a large reference the first part vanishes.

Successive samples of a camera are alike, so n is replaced by n_eff = n / design effect throughout.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_contract.tails import chi2_quantile, chi2_sf, f_sf, noncentral_chi2_sf, normal_quantile

__all__ = [
    "IGNORED_EFFECT",
    "Evidence",
    "benjamini_hochberg",
    "combine",
    "compare_counts",
    "compare_moments",
    "cusum_step",
    "holm",
    "pool",
    "population_stability_index",
    "stability_index_null_mean",
]

IGNORED_EFFECT: Final = 0.02
"""Squared effect that never alarms: one class of ten moves from 10 % to 14.5 %, or a mean by 0.14 deviations. It also
covers a stream that replays a finite recording of a thousand or more frames, which has a sampling error of its own."""
_REFERENCE_TAIL: Final = 1e-3
_MIN_EXPECTED: Final = 5.0
_CUSUM_SLACK: Final = 0.5
_Z_RANGE: Final = (-3.0, 6.0)
_CUSUM_CAP: Final = 12.0  # of the default limits


@dataclass(frozen=True)
class Evidence:
    """What one test says.

    Attributes:
        p: Two-sample p-value of this window.
        p_beyond: p-value under the composite null (question 2 above), for adding up over windows.
        effect: Squared standardised distance, d² ≈ statistic/n, less its expectation without drift; at least 0.
    """

    p: float
    p_beyond: float
    effect: float


def combine(parts: Sequence[Evidence]) -> Evidence | None:
    """Return the joint evidence of several tests of one channel (Bonferroni); None when there are none.

    Example:
        >>> combine([Evidence(0.01, 0.02, 0.1), Evidence(0.5, 0.6, 0.0)])
        Evidence(p=0.02, p_beyond=0.04, effect=0.1)
    """
    if not parts:
        return None
    k = len(parts)
    p, beyond = min(e.p for e in parts), min(e.p_beyond for e in parts)
    return Evidence(min(1.0, k * p), min(1.0, k * beyond), max(e.effect for e in parts))


def pool(observed: Sequence[int], reference: Sequence[int], n_eff: float) -> tuple[list[int], list[int]]:
    """Return both histograms with neighbouring bins joined until each expects at least 5.

    The expectation comes from the reference alone: joining by what was observed would bend the null law.

    Example:
        >>> pool([1, 2, 3, 50], [10, 10, 20, 160], 50)
        ([3, 3, 50], [20, 20, 160])
    """
    m = sum(reference)
    share = min(n_eff, float(m)) / m if m else 0.0
    joined: list[tuple[int, int]] = []
    seen = expected = 0
    for o, r in zip(observed, reference, strict=True):
        seen, expected = seen + o, expected + r
        if expected * share >= _MIN_EXPECTED:
            joined.append((seen, expected))
            seen = expected = 0
    if joined and (seen or expected):
        joined[-1] = joined[-1][0] + seen, joined[-1][1] + expected
    return [o for o, _ in joined], [r for _, r in joined]


def compare_counts(observed: Sequence[int], reference: Sequence[int], design: float = 1.0) -> Evidence | None:
    """Return the two-sample chi-square evidence; None when fewer than two bins remain.

    X² = Σ (√(m/n) O_b - √(n/m) R_b)² / (O_b + R_b), divided by the design effect, against χ²(B - 1).

    Args:
        observed: Counts of the window [bins].
        reference: Counts of the reference [bins].
        design: n / n_eff, at least 1.

    Example:
        >>> evidence = compare_counts([50, 50, 50, 50], [1000, 1000, 1000, 1000])
        >>> evidence.p, evidence.effect
        (1.0, 0.0)
    """
    o, r = pool(observed, reference, sum(observed) / design)
    n, m, df = sum(o), sum(r), len(o) - 1
    if df < 1 or not n:
        return None
    up, down = math.sqrt(m / n), math.sqrt(n / m)
    two_sample = sum((up * a - down * b) ** 2 / (a + b) for a, b in zip(o, r, strict=True)) / design
    against = sum((a - n * b / m) ** 2 / (n * b / m) for a, b in zip(o, r, strict=True)) / design
    return _evidence(chi2_sf(two_sample, df), against, df, n / design, m)


def compare_moments(distance: float, df: int, n_eff: float, m: int) -> Evidence | None:
    """Return the evidence of a squared Mahalanobis distance between a window's means and the reference's.

    T² = distance / (1/n_eff + 1/m) is Hotelling's statistic; because the covariance was estimated from m samples,
    (m - df) / (df (m - 1)) T² is compared with F(df, m - df). None when the reference is too small.

    Args:
        distance: dᵀ Σ⁻¹ d, with Σ the covariance of one sample.
        df: Number of means compared.
        n_eff: Effective size of the window.
        m: Size of the reference.

    Reference:
        Hotelling, H. (1931). The generalization of Student's ratio. Ann. Math. Statist. 2(3).
    """
    if m <= 2 * df or n_eff <= 0:
        return None
    t2 = distance / (1 / n_eff + 1 / m)
    p = f_sf(t2 * (m - df) / (df * (m - 1)), df, m - df)
    return _evidence(p, n_eff * distance * (m - df) / (m - 1), df, n_eff, m)


def _evidence(p: float, against: float, df: int, n_eff: float, m: int) -> Evidence:
    allowed = n_eff * (chi2_quantile(_REFERENCE_TAIL, df) / m + IGNORED_EFFECT)
    effect = max(0.0, against / n_eff - df * (1 / n_eff + 1 / m))
    return Evidence(p, noncentral_chi2_sf(against, df, allowed), effect)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p-values; the family-wise error holds under any dependence.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.5})
        {'a': 0.03, 'b': 0.08, 'c': 0.5}

    Reference:
        Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scand. J. Statist. 6.
    """
    adjusted, highest = dict[str, float](), 0.0
    ranked = sorted(p_values.items(), key=lambda item: item[1])
    for i, (name, p) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - i)))
        adjusted[name] = highest
    return adjusted


def benjamini_hochberg(p_values: Mapping[str, float], q: float = 0.05) -> frozenset[str]:
    """Return the names that are discoveries at a false-discovery rate q.

    Example:
        >>> sorted(benjamini_hochberg({"a": 0.001, "b": 0.02, "c": 0.9}))
        ['a', 'b']

    Reference:
        Benjamini, Y., Hochberg, Y. (1995). Controlling the false discovery rate. J. R. Statist. Soc. B 57.
    """
    ranked = sorted(p_values.items(), key=lambda item: item[1])
    passing = [i for i, (_, p) in enumerate(ranked, start=1) if p <= q * i / len(ranked)]
    return frozenset(name for name, _ in ranked[: max(passing, default=0)])


def cusum_step(value: float, p: float, cap: float = _CUSUM_CAP) -> float:
    """Return the next value of a one-sided CUSUM: max(0, S + z - k), z = Φ⁻¹(1 - p) in -3 .. 6, k = 0.5.

    Capped, at 12 by default, so that a device that has healed is quiet again after a few good windows.

    Example:
        >>> cusum_step(4.0, 0.5), cusum_step(0.2, 0.5)
        (3.5, 0.0)

    Reference:
        Page, E. S. (1954). Continuous inspection schemes. Biometrika 41.
    """
    z = min(max(normal_quantile(p), _Z_RANGE[0]), _Z_RANGE[1])
    return min(max(0.0, value + z - _CUSUM_SLACK), cap)


def population_stability_index(observed: Sequence[int], reference: Sequence[int]) -> float:
    """Return PSI = Σ (q - p) ln(q/p) between two histograms, half a count added to each bin.

    A size of an effect, not a test: its null mean is about (B - 1)(1/n + 1/m), so with ten bins and n = 100 it passes
    0.1 in 31 % of the windows without any drift.

    Example:
        >>> round(population_stability_index([50, 50], [80, 20]), 3)
        0.406
    """
    bins, n, m = len(observed), sum(observed), sum(reference)
    q = [(o + 0.5) / (n + 0.5 * bins) for o in observed]
    p = [(r + 0.5) / (m + 0.5 * bins) for r in reference]
    return sum((a - b) * math.log(a / b) for a, b in zip(q, p, strict=True))


def stability_index_null_mean(bins: int, n_eff: float, m: int) -> float:
    """Return what PSI shows on average without drift: (B - 1)(1/n_eff + 1/m)."""
    return (bins - 1) * (1 / n_eff + 1 / m)
