# SPDX-License-Identifier: Apache-2.0
"""A fine histogram of inference times: sixteen buckets per octave, so that a gate sees 10 % on one device.

The drift summary's histogram has two buckets per octave: enough to say where a board stands, blind to 10 %. This one
never leaves the device; only quantiles read from it do. Inside a bucket (4.4 % wide) they are interpolated.
"""

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["BUCKETS", "FIRST_US", "PER_OCTAVE", "bucket_of", "quantile_us"]

PER_OCTAVE: Final = 16
FIRST_US: Final = 32.0
BUCKETS: Final = 16 * PER_OCTAVE
"""From 32 µs to 2.1 s; the ends are open."""


def bucket_of(us: float) -> int:
    """Return the bucket of a time in µs.

    Example:
        >>> [bucket_of(us) for us in (1, 32, 33.5, 64, 1000, 1e9)]
        [0, 0, 1, 16, 79, 255]
    """
    return min(max(math.floor(PER_OCTAVE * math.log2(max(us, FIRST_US) / FIRST_US)), 0), BUCKETS - 1)


def quantile_us(counts: Sequence[int], share: float) -> float | None:
    """Return a quantile in µs, interpolated inside its bucket by logarithm; None when nothing was counted.

    Args:
        counts: [BUCKETS]
        share: 0 < share ≤ 1.

    Example:
        >>> counts = [0] * BUCKETS
        >>> counts[bucket_of(1000.0)] = 10
        >>> quantile_us(counts, 0.5)
        1002.1
    """
    wanted, seen = share * sum(counts), 0.0
    for bucket, count in enumerate(counts):
        if count and seen + count >= wanted:
            inside = max(wanted - seen, 0.0) / count
            return float(round(FIRST_US * 2.0 ** ((bucket + inside) / PER_OCTAVE), 1))
        seen += count
    return None
