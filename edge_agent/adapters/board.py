# SPDX-License-Identifier: Apache-2.0
"""What the board says of itself: a few small files of the kernel, no program is started."""

import os
import platform
import time
from pathlib import Path
from typing import Any

from edge_agent.adapters import accelerators_found, binding, time_floor

__all__ = ["facts", "free_bytes", "free_inodes", "health", "rss_kb"]

_MODEL = Path("/proc/device-tree/model")
_THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")


def facts() -> dict[str, Any]:
    """Return what does not change while the board runs.

    Example:
        >>> sorted(facts())[:4]
        ['cores', 'identity', 'kernel', 'machine']
    """
    name = os.uname()
    found: dict[str, Any] = {"machine": name.machine, "kernel": name.release, "python": platform.python_version()}
    text = _read(_MODEL).rstrip("\0\n")
    found["cores"], found["identity"] = os.cpu_count() or 1, binding.read_board().to_json()
    return {**found, **({"model": text} if text else {}), **accelerators_found.facts()}


def health(folder: Path) -> dict[str, Any]:
    """Return clock quality, memory, temperature and free disk; a sensor that is not there is left out.

    Args:
        folder: The data folder, whose disk counts.
    """
    disk = os.statvfs(folder)
    found: dict[str, Any] = {
        "clock_quality": time_floor.QUALITIES.index(time_floor.quality(folder / "tuf", time.time())),
        "rss_kb": rss_kb("self"),
        "disk_free_mb": disk.f_bavail * disk.f_frsize // 1_000_000,
        "inodes_free": disk.f_favail,
    }
    temperature = _read(_THERMAL).strip()
    if temperature.lstrip("-").isdigit():
        found["temperature_c"] = int(temperature) / 1000.0
    return found


def free_bytes(folder: Path) -> int:
    """Return the bytes that we may still write beside a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def free_inodes(folder: Path) -> int | None:
    """Return how many more files fit beside a folder, None on a file system that does not count them."""
    disk = os.statvfs(folder)
    return disk.f_favail if disk.f_files else None


def rss_kb(pid: int | str) -> int:
    """Return the resident memory of a process, 0 if it is gone."""
    for line in _read(Path("/proc", str(pid), "status")).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
