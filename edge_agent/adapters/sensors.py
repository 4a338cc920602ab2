# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of clock, throttling, memory and uptime: one small file each, no program is started.

Which files there are is looked up once. ``throttled`` has the bits of the Raspberry Pi's firmware: 0 under-voltage,
1 frequency capped, 2 throttled, 3 soft temperature limit, each now; 16 to 19 the same since boot. Where only the
voltage driver is there, it has bit 0.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["Sensors"]

_FIRMWARE: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
_CLOCK: Final = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
_COUNT: Final = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"


class Sensors:
    """Reads the sensors that this board has.

    Args:
        root: Where ``/proc`` and ``/sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        known: dict[str, tuple[Path, Callable[[str], Any]]] = {
            "cpu_mhz": (root / _CLOCK, lambda text: round(int(text) / 1000)),
            "throttled": (root / _FIRMWARE, lambda text: int(text, 16)),
            "throttle_count": (root / _COUNT, int),
            "board_uptime_s": (root / "proc/uptime", lambda text: round(float(text.split()[0]))),
            "memory_free_mb": (root / "proc/meminfo", _free_mb),
        }
        if not known["throttled"][0].exists():
            known["throttled"] = (_voltage_alarm(root), int)
        self._there = {name: way for name, way in known.items() if way[0].is_file()}

    def read(self) -> dict[str, Any]:
        """Return ``cpu_mhz``, ``throttled``, ``throttle_count``, ``board_uptime_s`` and ``memory_free_mb``.

        What is not there is left out; a sensor that answers nonsense is, too.

        Example:
            >>> found = Sensors().read()
            >>> found["memory_free_mb"] > 0 and found["board_uptime_s"] > 0
            True
        """
        found = {}
        for name, (path, parse) in self._there.items():
            try:
                found[name] = parse(path.read_text())
            except (OSError, ValueError, IndexError):
                continue
        return found


def _free_mb(text: str) -> int:
    """Return MemAvailable of ``/proc/meminfo`` in megabytes; raises IndexError if it is not told."""
    return int(text.split("MemAvailable:")[1].split(maxsplit=1)[0]) * 1024 // 1_000_000


def _voltage_alarm(root: Path) -> Path:
    """Return the alarm of the Raspberry Pi's voltage driver, or a path where nothing is."""
    for name in sorted((root / "sys/class/hwmon").glob("hwmon*/name")):
        try:
            if name.read_text().strip() == "rpi_volt":
                return name.with_name("in0_lcrit_alarm")
        except OSError:
            continue
    return root / _FIRMWARE
