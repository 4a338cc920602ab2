# SPDX-License-Identifier: Apache-2.0
"""When a certificate is renewed, and how long to wait after a failure. Pure."""

import hashlib
from typing import Final

__all__ = ["pause_s", "renew_at"]

_SPREAD: Final = 0.05
_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 6 * 3600.0


def renew_at(not_before: float, not_after: float, device: str) -> float:
    """Return when to renew: at half of the life, moved by up to ±5 % of it by the device's name.

    A fleet that was enrolled in one hour then asks over weeks, and each device keeps its own day over restarts.

    Example:
        >>> days = [renew_at(0.0, 100.0, f"pi-{n}") for n in range(50)]
        >>> min(days) >= 45.0, max(days) <= 55.0, max(days) - min(days) > 8.0
        (True, True, True)
    """
    share = int.from_bytes(hashlib.sha256(device.encode()).digest()[:4]) / 2**32
    return not_before + (not_after - not_before) * (0.5 + _SPREAD * (2 * share - 1))


def pause_s(failures: int, share: float) -> float:
    """Return the pause before the next attempt: full jitter under a bound that doubles from a minute to six hours.

    Args:
        failures: In a row, from 1.
        share: A uniform random number in [0, 1).

    Example:
        >>> [pause_s(n, 0.5) for n in (1, 2, 30)]
        [30.0, 60.0, 10800.0]
    """
    return share * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))
