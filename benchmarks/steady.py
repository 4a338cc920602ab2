# SPDX-License-Identifier: Apache-2.0
"""When is a process warm? When its last few times are as long as those before them. Standard library only."""

from collections.abc import Sequence

from benchmarks.quantiles import median

__all__ = ["is_steady"]


def is_steady(values: Sequence[float], last: int = 5, tolerance: float = 0.02) -> bool:
    """Return whether the median of the last values differs from that of as many before by less than the tolerance.

    Args:
        values: Times in the order of the runs.
        last: How many make a median.
        tolerance: Largest difference, as a share of the earlier median.

    Example:
        >>> is_steady([9.0, 5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]), is_steady([4.0] * 9)
        (True, False)
    """
    if len(values) < 2 * last:
        return False
    before, now = median(values[-2 * last : -last]), median(values[-last:])
    return abs(now - before) <= tolerance * before
