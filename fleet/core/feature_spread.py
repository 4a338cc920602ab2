# SPDX-License-Identifier: Apache-2.0
"""How far devices' features scatter, compared with the reference: what a cohort that has moved is measured by. Pure."""

from typing import Final

from edge_contract.counts import EMBEDDING_UNIT, Counters
from edge_contract.profile import ReferenceProfile

__all__ = ["times_wider"]

_WIDER: Final = 1.5


def times_wider(profile: ReferenceProfile, rest: Counters) -> float:
    """Return how many times the variance of a feature, or of its square, is what the reference's covariance says.

    The covariance in the test of the features is the reference's. Devices that have moved together may scatter far more
    than that, and with it each would differ from the others. Counters hold z and z² only; the variance of z² is taken
    as a normal law has it, 2σ⁴ + 4μ²σ². The largest ratio counts for all: too cautious for most directions.

    Args:
        profile: The reference.
        rest: What a device is compared with.

    Returns:
        1 where they scatter as on the reference, as far as a few hundred samples can tell.

    Example:
        >>> profile = ReferenceProfile.blank(("cat", "dog"))
        >>> times_wider(profile, profile.counters)
        1.0
    """
    ratios = [1.0]
    for i in range(profile.projection.components):
        mean, here = _moments(rest, i)
        middle, there = _moments(profile.counters, i)
        if there > 0:
            squares = (here * here + 2 * mean * mean * here) / (there * there + 2 * middle * middle * there)
            ratios += [here / there, squares]
    return most if (most := max(ratios)) > _WIDER else 1.0


def _moments(counters: Counters, i: int) -> tuple[float, float]:
    """Return mean and variance of a component of the features; without samples 0 and 0."""
    n = counters.n_sampled * EMBEDDING_UNIT
    if not n:
        return 0.0, 0.0
    mean = counters.embedding_sum[i] / n
    return mean, max(0.0, counters.embedding_squares[i] / n - mean * mean)
