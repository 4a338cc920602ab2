# SPDX-License-Identifier: Apache-2.0
"""What the board says of itself: a few small files of the kernel, no program is started."""

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["facts", "free_bytes", "health"]

_MODEL = Path("/proc/device-tree/model")
_THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")


def facts() -> dict[str, Any]:
    """Return what does not change while the board runs.

    Example:
        >>> sorted(facts())[:3]
        ['cores', 'kernel', 'machine']
    """
    name = os.uname()
    found = {"machine": name.machine, "kernel": name.release, "python": platform.python_version()}
    text = _read(_MODEL).rstrip("\0\n")
    return {**found, "cores": os.cpu_count() or 1, **({"model": text} if text else {})}


def health(folder: Path, runner_pid: int | None) -> dict[str, Any]:
    """Return memory, temperature and free disk; a sensor that is not there is left out.

    Args:
        folder: The data folder, whose disk counts.
        runner_pid: The runner's process, if it is up.
    """
    disk = os.statvfs(folder)
    found: dict[str, Any] = {
        "rss_kb": _rss_kb("self"),
        "disk_free_mb": disk.f_bavail * disk.f_frsize // 1_000_000,
        "inodes_free": disk.f_favail,
    }
    if runner_pid is not None:
        found["runner_rss_kb"] = _rss_kb(str(runner_pid))
    temperature = _read(_THERMAL).strip()
    if temperature.lstrip("-").isdigit():
        found["temperature_c"] = int(temperature) / 1000.0
    return found


def free_bytes(folder: Path) -> int:
    """Return the bytes that we may still write beside a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _rss_kb(pid: str) -> int:
    for line in _read(Path("/proc", pid, "status")).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
