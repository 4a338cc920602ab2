# SPDX-License-Identifier: Apache-2.0
"""Worlds: ways in which launches and their runs vary, each with its true quantiles.

Every world has runs that are alike within a launch (an autoregressive process of order 1 below the times) and launches
that differ. The truth is that of 20 000 launches of the same length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORLDS", "Truth", "World", "alike", "truth_of"]

Array = NDArray[np.float64]

_MANY: Final = 20_000


@dataclass(frozen=True)
class World:
    """One way to vary.

    Attributes:
        name: For tables.
        words: What is in it.
        draw: (random, launches m, runs n) → times in ms [m, n].
    """

    name: str
    words: str
    draw: Callable[[np.random.Generator, int, int], Array]


@dataclass(frozen=True)
class Truth:
    """What is true of a world at a number of runs in a launch."""

    p50: float
    p90: float
    p99: float
    median_of_medians: float


def alike(random: np.random.Generator, m: int, n: int, rho: float) -> Array:
    """Return unit normals [m, n] whose neighbours in a row have the correlation rho."""
    fresh: Array = random.standard_normal((m, n))
    fresh[:, 1:] *= (1 - rho * rho) ** 0.5
    for i in range(1, n):
        fresh[:, i] += rho * fresh[:, i - 1]
    return fresh


def _between(random: np.random.Generator, m: int, spread: float) -> Array:
    return np.asarray(np.exp(spread * random.standard_normal((m, 1))))


def _independent(random: np.random.Generator, m: int, n: int) -> Array:
    return np.asarray(np.exp(0.05 * random.standard_normal((m, n))))


def _autocorrelated(random: np.random.Generator, m: int, n: int) -> Array:
    return np.asarray(_between(random, m, 0.01) * np.exp(0.05 * alike(random, m, n, 0.9)))


def _heavy(random: np.random.Generator, m: int, n: int) -> Array:
    """Spikes in bursts: 3 % of the runs take longer by a Pareto variable of index 1.5, which has no variance."""
    body = _between(random, m, 0.02) * np.exp(0.03 * alike(random, m, n, 0.5))
    spiked = alike(random, m, n, 0.5) > 1.8808
    return np.asarray(body * (1 + spiked * 0.3 * (1 + random.pareto(1.5, (m, n)))))


def _two_speeds(random: np.random.Generator, m: int, n: int) -> Array:
    """A launch changes between two speeds 30 % apart and stays for a while; three runs in ten are slow."""
    slow = alike(random, m, n, 0.95) > 0.5244
    return np.asarray(_between(random, m, 0.01) * np.exp(0.03 * alike(random, m, n, 0.5)) * np.where(slow, 1.3, 1.0))


def _even_speeds(random: np.random.Generator, m: int, n: int) -> Array:
    """As many slow runs as fast ones: the median lies between the modes, the worst place there is."""
    slow = alike(random, m, n, 0.5) > 0
    return np.asarray(_between(random, m, 0.01) * np.exp(0.03 * alike(random, m, n, 0.5)) * np.where(slow, 1.3, 1.0))


def _two_kinds(random: np.random.Generator, m: int, n: int) -> Array:
    """One launch in five is slow by 10 % from its start to its end: its memory fell on other pages."""
    slow = random.random((m, 1)) < 0.2
    times = _between(random, m, 0.01) * np.exp(0.03 * alike(random, m, n, 0.7))
    return np.asarray(times * np.where(slow, 1.1, 1.0))


def _wild_launches(random: np.random.Generator, m: int, n: int) -> Array:
    """Launches differ by a Student variable of 3 degrees of freedom, which is heavy-tailed itself."""
    return np.asarray(np.exp(0.02 * random.standard_t(3, (m, 1)) + 0.03 * alike(random, m, n, 0.8)))


WORLDS: Final = (
    World("independent", "log-normal 5 %, nothing else", _independent),
    World("autocorrelated", "correlation 0.9, launches 1 % apart", _autocorrelated),
    World("heavy-tailed", "3 % of the runs Pareto 1.5, launches 2 %", _heavy),
    World("two speeds", "30 % slow runs by 30 %, in stretches", _two_speeds),
    World("two speeds, even", "50 % slow runs by 30 %", _even_speeds),
    World("two kinds of launch", "20 % slow launches by 10 %", _two_kinds),
    World("wild launches", "launches Student's t, 3 degrees", _wild_launches),
)


@lru_cache(maxsize=64)
def truth_of(world: World, runs: int) -> Truth:
    """Return the true quantiles of a world's launches of so many runs."""
    random = np.random.default_rng(987654321)
    parts = [world.draw(random, _MANY // 20, runs) for _ in range(20)]
    medians = np.concatenate([np.median(one, axis=1) for one in parts])
    every = np.concatenate([one.ravel() for one in parts])
    p50, p90, p99 = np.quantile(every, [0.5, 0.9, 0.99])
    return Truth(float(p50), float(p90), float(p99), float(np.median(medians)))
