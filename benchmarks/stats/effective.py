# SPDX-License-Identifier: Apache-2.0
"""How many independent runs a series of runs is worth: neighbours of one process are alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["acf1", "autocorrelations", "design_effect"]

Array = NDArray[np.float64]


def autocorrelations(series: NDArray[Any]) -> Array:
    """Return the autocorrelations of lags 0 to n - 1; of a constant series, 1 and zeros.

    By Fourier transform: a launch of 100 000 runs takes milliseconds.

    Example:
        >>> [float(round(value, 2)) for value in autocorrelations(np.array([1.0, -1.0, 1.0, -1.0]))]
        [1.0, -0.75, 0.5, -0.25]
    """
    centred = np.asarray(series, np.float64) - np.mean(series)
    size = 1 << (2 * len(centred) - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    found: Array = np.fft.irfft(spectrum * np.conj(spectrum), size)[: len(centred)]
    if found[0] <= 1e-24 * max(1.0, float(np.mean(series)) ** 2):
        return np.asarray(np.eye(1, len(centred), dtype=np.float64)[0])
    return np.asarray(found / found[0])


def acf1(series: NDArray[Any]) -> float:
    """Return the correlation of neighbours; 0 where there are fewer than three, or all are the same.

    Example:
        >>> acf1(np.array([1.0, 2.0, 3.0, 4.0])) > 0 > acf1(np.array([1.0, 2.0, 1.0, 2.0]))
        True
    """
    return float(autocorrelations(series)[1]) if len(series) > 2 else 0.0


def design_effect(series: NDArray[Any]) -> float:
    """Return how many runs say as much as one independent run, at least 1 and at most the length of the series.

    τ = 1 + 2 Σ ρ_k, summed in pairs of lags for as long as the pairs are positive, and never growing.

    Args:
        series: Times, or the indicator of being below a quantile, in the order of the runs [n].

    Example:
        >>> draw = np.random.default_rng(1)
        >>> round(design_effect(draw.random(1000)))
        1

    Reference:
        C. J. Geyer, Practical Markov chain Monte Carlo, 1992, section 3.3 (initial monotone sequence)
    """
    n = len(series)
    if n < 4:
        return 1.0
    rho = autocorrelations(series)
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    return float(min(max(2 * kept.sum() - 1, 1.0), n))
