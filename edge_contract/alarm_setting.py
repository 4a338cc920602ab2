# SPDX-License-Identifier: Apache-2.0
"""The setting "so many false alarms in a year" as limits for a window, the same on device and server."""

import math
from functools import lru_cache
from typing import Final

from edge_contract.alarm_rate import DEFAULT, AlarmLimits, limits_for
from edge_contract.errors import UsageError

__all__ = ["RATE_SETTING", "limits_of"]

RATE_SETTING: Final = "false_alarms_per_year"
"""Name of the device setting; the server's own setting holds for devices that have none."""
_LEAST_S: Final = 60.0
_STRICTEST: Final = AlarmLimits(warn_p=1e-5, alarm_p=1e-9, cusum=20.0, calm=10.0)


def limits_of(false_alarms: float, duration_ms: int) -> AlarmLimits:
    """Return the limits of a device whose windows are so long.

    Windows shorter than a minute are judged as if a minute passed between them: a rate in a year means nothing for what
    is tried out in an afternoon.

    Args:
        false_alarms: In a year at most; 0 takes the contract's own limits.
        duration_ms: Of the window.

    Example:
        >>> limits_of(0.0, 3_600_000) == DEFAULT, limits_of(1.0, 3_600_000).cusum
        (True, 9.1)
    """
    if false_alarms <= 0:
        return DEFAULT
    return _limits(false_alarms, math.floor(math.log2(max(duration_ms / 1000, _LEAST_S)) * 4))


@lru_cache(maxsize=256)
def _limits(false_alarms: float, quarter_octaves: int) -> AlarmLimits:
    """Windows are never of quite the same length: they are counted in quarters of an octave, rounded down."""
    try:
        return limits_for(false_alarms, 2 ** (quarter_octaves / 4))
    except UsageError:  # fewer than can be promised
        return _STRICTEST
