# SPDX-License-Identifier: Apache-2.0
"""The two clocks, and the random name of this process start."""

import os
import time

from edge_agent.core.events import Instant

__all__ = ["new_boot_id", "now"]


def now() -> Instant:
    """Return this moment on both clocks.

    ``CLOCK_BOOTTIME`` goes on while a board sleeps, so a deadline is not stretched by suspend.
    """
    return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


def new_boot_id() -> str:
    """Return a new random id: 16 hexadecimal digits.

    Example:
        >>> len(new_boot_id()), new_boot_id() != new_boot_id()
        (16, True)
    """
    return os.urandom(8).hex()
