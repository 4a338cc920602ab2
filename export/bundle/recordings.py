# SPDX-License-Identifier: Apache-2.0
"""How many samples a reference is worth, where it was recorded in series: one writer, one wrist, one day after another.

A window counts blocks of 16 inferences and cannot see further. The workstation has the whole reference in its order:
the digits that one person writes are only a little alike, but 138 of them in a row are alike by that little, and the
mean of the reference is then as uncertain as if it had a few dozen samples.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.counts import EMBEDDING_CLIP
from edge_contract.profile import ReferenceProfile
from edge_contract.tails import chi2_quantile
from export.bundle.projection import Asked, seen

__all__ = ["design_of", "series_design"]

_SHORTEST: Final = 16
_FEWEST: Final = 4
_BY_CHANCE: Final = 1e-3
_ASTRIDE: Final = 1.5
"""Blocks begin anywhere in a series. One as long as the series lies astride two, with shares a and 1 - a, and
a² + (1 - a)² is 2/3 on average: its mean varies that much less than that of a block which begins with the series."""

Array = NDArray[Any]


def series_design(profile: ReferenceProfile, asked: Asked) -> float:
    """Return m / m_eff of a reference in the order of its samples, from its whitened features; 1 without features."""
    p = profile.projection
    if not p.components:
        return 1.0
    weights = np.array(p.weights, dtype=np.float64).reshape(p.components, p.dimension)
    z = (seen(asked) @ weights.T) * np.array(p.scale) - np.array(p.offset)
    return design_of(z.clip(-EMBEDDING_CLIP, EMBEDDING_CLIP), asked.truth)


def design_of(z: Array, truth: Array) -> float:
    """Return 3/2 of the largest τ(L) = L · Var(means of blocks of L) / Var that chance does not explain, or 1.

    L doubles from 16 until fewer than four blocks are left; τ is the mean over the components, and chance explains what
    999 of 1000 shuffled references stay below. The half more is for blocks that lie astride two series. Each class is
    first moved to mean 0, so that the order of the classes, which is somebody's choice, counts for nothing.

    Args:
        z: Whitened features in the order of the samples [m, k].
        truth: True classes [m].

    Example:
        >>> alike = np.repeat(np.random.default_rng(0).normal(size=(40, 8)), 32, axis=0)
        >>> 32 < design_of(alike, np.zeros(len(alike), dtype=int)) < 64
        True

    Reference:
        Flyvbjerg, H., Petersen, H. G. (1989). Error estimates on averages of correlated data. J. Chem. Phys. 91.
    """
    rest = _within_classes(z, truth)
    variance = rest.var(axis=0)
    rest, variance = rest[:, variance > 0], variance[variance > 0]
    found, length = 1.0, _SHORTEST
    while len(variance) and len(rest) // length >= _FEWEST:
        blocks = len(rest) // length
        means = rest[: blocks * length].reshape(blocks, length, -1).mean(axis=1)
        tau = float((length * means.var(axis=0, ddof=1) / variance).mean())
        df = (blocks - 1) * len(variance)
        if tau > chi2_quantile(_BY_CHANCE, df) / df:
            found = max(found, _ASTRIDE * tau)
        length *= 2
    return round(found, 3)


def _within_classes(z: Array, truth: Array) -> Array:
    """Return z less the mean of its class [m, k]."""
    classes, place = np.unique(truth, return_inverse=True)
    sums = np.zeros((len(classes), z.shape[1]))
    np.add.at(sums, place, z)
    rest: Array = z - (sums / np.bincount(place)[:, None])[place]
    return rest
