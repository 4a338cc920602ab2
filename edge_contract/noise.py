# SPDX-License-Identifier: Apache-2.0
"""Noise on the counters of a window, so that what leaves says little of any one inference; and tests that know of it.

What is promised: whoever sees the noised window, and knows every inference but one, can tell what that one showed with
a likelihood ratio of at most e^ε (ε-differential privacy, one inference replaced by another; how many there were is no
secret). The window's ε is shared by the histograms that are sent: class × confidence, the signal, each input statistic,
each table with one count per inference, and how often a class repeats. Replacing one inference moves two counts of a
histogram by one each, so each count gets the difference of two geometric variables with a = exp(-ε / (2 × histograms)):
variance 2a / (1 - a)². Everything else that describes inputs or answers is left out: moments, embedding, boxes' scores,
sensors. Inference times and the board's health are sent as they are.

Noised integers add up like all others; their variances add up beside them (``Counters.noise``).

Reference:
    Ghosh, A., Roughgarden, T., Sundararajan, M. (2012). Universally utility-maximizing privacy mechanisms. SIAM J.
    Comput. 41.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from edge_contract.counts import LEVELS, NOISE_UNIT, Counters
from edge_contract.histograms import by_level, inputs
from edge_contract.profile import INPUTS, ReferenceProfile
from edge_contract.statistics import IGNORED_EFFECT, Evidence, combine
from edge_contract.tails import chi2_quantile, chi2_sf, noncentral_chi2_sf
from edge_contract.task_channels import tables
from edge_contract.tasks import CLASSIFY, channels_of

__all__ = ["compare_noised", "histograms", "noised", "noised_evidence", "variance_of"]

Draw = Callable[[], float]
_SENSITIVITY: Final = 2.0
_MIN_EXPECTED: Final = 5.0
_OVER_NOISE: Final = 1.5
_FEWEST_BINS: Final = 5
_REFERENCE_TAIL: Final = 1e-3
_FOURTH, _SIXTH = 3.0, 30.0
"""Standardised cumulants of a two-sided geometric variable of many steps: those of Laplace's law."""


def histograms(counters: Counters) -> int:
    """Return among how many histograms a window's ε is shared.

    Example:
        >>> histograms(Counters.zero(10))
        3
    """
    looked = len(INPUTS) if any(counters.brightness) else 0
    return 3 + looked + len(_whole_tables(counters))


def _whole_tables(counters: Counters) -> tuple[int, ...]:
    """Return which tables count each inference once: not boxes, of which one frame may have any number."""
    if counters.task == "detect":
        return (0,) if counters.tables else ()
    return () if counters.task == "segment" else tuple(range(len(counters.tables)))


def variance_of(epsilon: float, shared: int) -> float:
    """Return the variance of the noise on one count, where ε is shared by so many histograms.

    Example:
        >>> round(variance_of(2.0, 6), 1)
        71.8
    """
    a = math.exp(-epsilon / (_SENSITIVITY * shared))
    return 2 * a / (1 - a) ** 2


def noised(counters: Counters, epsilon: float, draw: Draw) -> Counters:
    """Return the counters with noise, and without what gets none.

    Args:
        counters: A window.
        epsilon: Of the whole window, above 0.
        draw: Gives numbers in (0, 1], unpredictable for whoever receives the window.
    """
    shared = histograms(counters)
    a = math.exp(-epsilon / (_SENSITIVITY * shared))
    add = partial(_added, log_a=math.log(a), draw=draw)
    whole = _whole_tables(counters)
    looked: dict[str, Any] = {name: add(getattr(counters, name)) for name in INPUTS if any(counters.brightness)}
    return replace(
        replace(counters.emptied(), **looked),
        n_infer=counters.n_infer,
        n_sampled=counters.n_sampled,
        n_err=counters.n_err,
        n_drop=counters.n_drop,
        cells=add(counters.cells),
        energy=add(counters.energy),
        pairs=counters.pairs,
        repeats=add((counters.repeats,))[0],
        latency=counters.latency,
        latency_sum_us=counters.latency_sum_us,
        tables=tuple(add(t) if i in whole else (0,) * len(t) for i, t in enumerate(counters.tables)),
        noise=(1, round(NOISE_UNIT * variance_of(epsilon, shared))),
    )


def _added(counts: Sequence[int], log_a: float, draw: Draw) -> tuple[int, ...]:
    return tuple(count + _geometric(log_a, draw) - _geometric(log_a, draw) for count in counts)


def _geometric(log_a: float, draw: Draw) -> int:
    """Return k with probability (1 - a) aᵏ."""
    return int(math.log(draw()) / log_a)


@dataclass(frozen=True)
class _Bin:
    observed: int
    reference: int
    cells: int


def compare_noised(
    observed: Sequence[int], reference: Sequence[int], design: float, *, n: int, noise: tuple[int, int], cells: int = 1
) -> Evidence | None:
    """Return the two-sample evidence of a noised histogram; None when fewer than two bins remain.

    The distances d = O - n R/m have the covariance Σ = design × n (1 + n/m) (diag p - ppᵀ) + σ² diag(cells). dᵀ Σ⁻¹ d
    has mean B over B bins; the noise has heavier tails than a normal variable, so it is compared with a scaled and
    shifted chi-square of the same mean, variance and skewness; and far out, where one count's noise alone makes the
    distance, with the tail of that noise.

    Args:
        observed: Noised counts of the window [bins].
        reference: Counts of the reference [bins].
        design: n / n_eff, at least 1.
        n: Samples of the window; the noised counts do not sum to it.
        noise: ``Counters.noise``.
        cells: Noised counts that each bin is the sum of.
    """
    m = sum(reference)
    variance = noise[1] / NOISE_UNIT
    least = max(_MIN_EXPECTED, min(_OVER_NOISE * variance * cells, n / design / _FEWEST_BINS))
    bins = _pooled(observed, reference, n / design, cells, least)
    if len(bins) < 2 or not n:
        return None
    two_sample, spread = _distance(bins, n, design * n * (1 + n / m), variance)
    against, _ = _distance(bins, n, design * n, variance)
    df = len(bins)
    stretch, freedom = _law(bins, spread, variance, noise[0])
    away = df - stretch * freedom
    allowed = n / design * (chi2_quantile(_REFERENCE_TAIL, df - 1) / m + IGNORED_EFFECT)
    excess = sum(
        ((b.observed - n * b.reference / m) ** 2 - variance * b.cells) / max(b.reference / m, 1e-9) for b in bins
    )
    effect = max(0.0, excess / n**2 - (df - 1) * design * (1 / n + 1 / m))
    p = chi2_sf((two_sample - away) / stretch, freedom)
    beyond = noncentral_chi2_sf((against - away) / stretch, freedom, allowed / stretch)
    far = _far_tail(two_sample, bins, spread, variance, noise[0])
    return Evidence(max(p, far), max(beyond, far), effect)


def _far_tail(distance: float, bins: Sequence[_Bin], spread: Sequence[float], variance: float, windows: int) -> float:
    """Return the chance that the noise of one count makes the distance alone, the other bins being as expected."""
    left, scale = max(0.0, distance - len(bins) + 1), math.sqrt(variance / windows / 2)
    tails = (b.cells * windows * math.exp(-math.sqrt(left * v) / scale) for b, v in zip(bins, spread, strict=True))
    return min(1.0, sum(tails))


def _law(bins: Sequence[_Bin], spread: Sequence[float], variance: float, windows: int) -> tuple[float, float]:
    """Return g and h of the law g χ²(h) + B - gh that has the distance's mean B, variance and skewness.

    A bin's z² has the variance 2 + k₄ and the third cumulant 8 + 12 k₄ + k₆, with the cumulants of z = d / √v, which
    the noise alone has: of a bin of c noised counts in W windows, where the noise makes the share w of v, they are
    k₄ = 3 w² / (cW) and k₆ = 30 w³ / (cW)².

    Reference:
        Pearson, E. S. (1959). Note on an approximation to the distribution of non-central χ². Biometrika 46.
    """
    second = third = 0.0
    for b, v in zip(bins, spread, strict=True):
        share, terms = variance * b.cells / v, b.cells * windows
        fourth, sixth = _FOURTH * share**2 / terms, _SIXTH * share**3 / terms**2
        second, third = second + 2 + fourth, third + 8 + 12 * fourth + sixth
    stretch = third / (4 * second)
    return stretch, second / (2 * stretch**2)


def _pooled(observed: Sequence[int], reference: Sequence[int], n_eff: float, cells: int, least: float) -> list[_Bin]:
    """Join neighbours until each bin expects ``least``, by what the reference says alone.

    Wide bins, because noise is paid for each: a shift over several neighbours adds up in a bin, the noise less so.
    """
    m = sum(reference)
    share = min(n_eff, float(m)) / m if m else 0.0
    bins: list[_Bin] = []
    waiting = _Bin(0, 0, 0)
    for o, r in zip(observed, reference, strict=True):
        waiting = _Bin(waiting.observed + o, waiting.reference + r, waiting.cells + cells)
        if waiting.reference * share >= least:
            bins.append(waiting)
            waiting = _Bin(0, 0, 0)
    if bins and waiting.cells:
        last = bins.pop()
        joined = (last.observed + waiting.observed, last.reference + waiting.reference, last.cells + waiting.cells)
        bins.append(_Bin(*joined))
    return bins


def _distance(bins: Sequence[_Bin], n: int, scale: float, variance: float) -> tuple[float, list[float]]:
    """Return dᵀ Σ⁻¹ d by the Sherman-Morrison formula, and the diagonal of Σ + scale × ppᵀ [bins]."""
    m = sum(b.reference for b in bins)
    total = mixed = own = 0.0
    spread = []
    for b in bins:
        p = b.reference / m
        d, v = b.observed - n * p, scale * p + variance * b.cells
        total, mixed, own = total + d * d / v, mixed + d * p / v, own + p * p / v
        spread.append(v)
    left = 1 - scale * own
    return total + (scale * mixed * mixed / left if left > 1e-12 else 0.0), spread


def noised_evidence(profile: ReferenceProfile, counters: Counters, design: float) -> dict[str, Evidence | None]:
    """Return the evidence per channel of a noised window: of what is sent, with tests that know the noise.

    Args:
        profile: The reference.
        counters: The window, noised, or windows together of which some are.
        design: n / n_eff.
    """
    reference, n = profile.counters, counters.n_sampled
    compare = partial(compare_noised, n=n, noise=counters.noise)
    signal = compare(counters.energy, reference.energy, design)
    if profile.task == CLASSIFY:
        found = {
            "class": compare(counters.classes, reference.classes, design, cells=LEVELS),
            "class×confidence": compare(by_level(counters.cells), by_level(reference.cells), design),
            "energy": signal,
        }
    else:
        whole = _whole_tables(counters)
        parts = tables(profile, _only(counters, whole), design, compare)
        first = channels_of(profile.task)[0]
        parts[first] = [one for one in (signal, *parts.get(first, [])) if one is not None]
        found = {name: combine(told) for name, told in parts.items()}
    if any(counters.brightness):
        found["input"] = combine(inputs(profile, replace(counters, sensors=()), design, compare))
    return {name: found.get(name) for name in channels_of(profile.task)}


def _only(counters: Counters, whole: Sequence[int]) -> Counters:
    """Return the counters without tables but for some: an empty table cannot be compared."""
    return replace(counters, tables=tuple(t if i in whole else () for i, t in enumerate(counters.tables)))
