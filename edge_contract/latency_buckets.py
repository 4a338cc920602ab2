# SPDX-License-Identifier: Apache-2.0
"""The coarse histogram of inference times that travels in a drift summary: two buckets an octave, 32 µs to 2.1 s."""

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["LATENCY_BUCKETS", "latency_bucket", "latency_quantile_us"]

LATENCY_BUCKETS: Final = 32
_FIRST_OCTAVE: Final = 5  # 2^5 = 32 µs


def latency_bucket(latency_us: float) -> int:
    """Return the bucket of a time: two per octave from 32 µs to 2.1 s, the ends are open.

    Example:
        >>> [latency_bucket(us) for us in (1, 32, 47, 48, 64, 1000, 1e9)]
        [0, 0, 0, 1, 2, 9, 31]
    """
    whole = min(max(int(latency_us), 1), 1 << 40)
    octave = whole.bit_length() - 1
    half = whole >> (octave - 1) & 1 if octave else 0
    return min(max(2 * (octave - _FIRST_OCTAVE) + half, 0), LATENCY_BUCKETS - 1)


def latency_quantile_us(latency: Sequence[int], share: float) -> float | None:
    """Return a quantile of a latency histogram in µs, at the bucket's geometric middle; None when empty.

    Example:
        >>> latency = [0] * 32
        >>> latency[latency_bucket(1000)] = 9
        >>> latency_quantile_us(latency, 0.5)
        887.0
    """
    total, seen = sum(latency), 0
    for bucket, count in enumerate(latency):
        seen += count
        if count and seen >= share * total:
            low = 2.0 ** (_FIRST_OCTAVE + bucket // 2) * (1.5 if bucket % 2 else 1.0)
            high = low * (4 / 3 if bucket % 2 else 1.5)
            return float(round(math.sqrt(low * high)))
    return None
