# SPDX-License-Identifier: Apache-2.0
"""Streams in which nothing drifts and yet no sample is independent of the one before."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from benchmarks.drift.coded import Coded

__all__ = ["autoregressive", "held"]

Array = NDArray[Any]


def autoregressive(random: np.random.Generator, coded: Coded, n: int, rho: float) -> Array:
    """Return rows of a pool whose energies follow a Gaussian AR(1) process with lag-1 correlation ρ, in rank.

    Every row is as likely as any other, so the stream has the pool's distribution.
    """
    noise = random.normal(size=n + 500) * np.sqrt(1 - rho * rho)
    process = lfilter([1.0], [1.0, -rho], noise)[500:]
    # Rows of equal energy are shuffled: else their classes would follow the order of the pool.
    ranked = np.lexsort((random.random(len(coded)), coded.energy))
    places = np.minimum((norm.cdf(process) * len(coded)).astype(int), len(coded) - 1)
    rows: Array = ranked[places]
    return rows


def held(random: np.random.Generator, group: Array, n: int, rho: float) -> Array:
    """Return rows of a pool as a camera sees them: the same thing again with probability ρ, in another draw.

    Args:
        random: Where the randomness comes from.
        group: What each row shows [pool].
        n: Length of the stream.
        rho: Probability that the next row shows what this one showed.
    """
    order = np.argsort(group, kind="stable")
    names, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
    shares = sizes / sizes.sum()
    changes = np.append(True, random.random(n - 1) >= rho)
    shown = random.choice(len(names), int(changes.sum()), p=shares)[changes.cumsum() - 1]
    rows: Array = order[starts[shown] + (random.random(n) * sizes[shown]).astype(int)]
    return rows
