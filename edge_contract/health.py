# SPDX-License-Identifier: Apache-2.0
"""The board's health over a window, in 24 bytes."""

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.errors import SummaryError

__all__ = ["Health", "clip"]

_HEALTH: Final = struct.Struct("<hhhHIIHfH")
_NO_TEMPERATURE: Final = -32768
_NO_SHARE: Final = 65535
_MAX_ENERGY_J: Final = 1e12


@dataclass(frozen=True)
class Health:
    """The board over the window; None where it has no such sensor.

    Attributes:
        temperature_c: Lowest, mean and highest SoC temperature.
        throttled: Bits of ``get_throttled`` seen, or 0.
        clock_min_mhz: Lowest clock.
        rss_max_kb: Largest resident memory of runner and agent together.
        cpu_percent: Of one core, 0 .. 6553.
        energy_j: Metered energy.
        disk_free_mb: Free space for the outbox, at most 65534.
    """

    temperature_c: tuple[float, float, float] | None = None
    throttled: int = 0
    clock_min_mhz: int | None = None
    rss_max_kb: int | None = None
    cpu_percent: float | None = None
    energy_j: float | None = None
    disk_free_mb: int | None = None

    def pack(self) -> bytes:
        """Return the 24 bytes of section 8."""
        warm = self.temperature_c
        return _HEALTH.pack(
            *([_NO_TEMPERATURE] * 3 if warm is None else (clip(round(t * 10), -32767, 32767) for t in warm)),
            clip(self.clock_min_mhz or 0, 0, 65535),
            self.throttled & 0xFFFFFFFF,
            clip(self.rss_max_kb or 0, 0, 0xFFFFFFFF),
            _NO_SHARE if self.cpu_percent is None else clip(round(self.cpu_percent * 10), 0, 65534),
            math.nan if self.energy_j is None else clip(self.energy_j, 0.0, _MAX_ENERGY_J / 2),
            _NO_SHARE if self.disk_free_mb is None else clip(self.disk_free_mb, 0, 65534),
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Health":
        """Return the health in the 24 bytes of section 8; raises SummaryError for another length."""
        if len(data) != _HEALTH.size:
            raise SummaryError(f"health of {len(data)} bytes, not {_HEALTH.size}", where="summary")
        low, mean, high, clock, throttled, rss, cpu, energy, disk = _HEALTH.unpack(data)
        return cls(
            None if _NO_TEMPERATURE in (low, mean, high) else (low / 10, mean / 10, high / 10),
            throttled,
            clock or None,
            rss or None,
            None if cpu == _NO_SHARE else cpu / 10,
            energy if 0.0 <= energy < _MAX_ENERGY_J else None,  # NaN compares False
            None if disk == _NO_SHARE else disk,
        )


def clip(value: float, low: float, high: float) -> Any:
    """Return the value within low .. high, so that it fits its place on the wire."""
    return min(max(value, low), high)
