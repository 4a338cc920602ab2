# SPDX-License-Identifier: Apache-2.0
"""Say what a measurement was made on: without it a number means nothing."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "describe"]


@dataclass(frozen=True)
class Machine:
    """The computer of a measurement. ``load_1min`` well above 0 before the start means company."""

    processor: str
    cores: int
    system: str
    python: str
    governor: str
    load_1min: float

    def __str__(self) -> str:
        governor = f", governor {self.governor}" if self.governor else ""
        return (
            f"{self.processor}, {self.cores} cores{governor}, {self.system}, Python {self.python}, "
            f"load {self.load_1min:.1f}"
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _processor() -> str:
    board = _read("/proc/device-tree/model")  # "Raspberry Pi 4 Model B Rev 1.4"
    lines = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo").splitlines() if "model name" in line]
    return board or (lines[0] if lines else platform.processor() or platform.machine())


def describe() -> Machine:
    """Look at this machine, now."""
    return Machine(
        _processor(),
        len(os.sched_getaffinity(0)),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        platform.python_version(),
        _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        os.getloadavg()[0],
    )
