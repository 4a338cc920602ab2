# SPDX-License-Identifier: Apache-2.0
"""What decides whether an update may go on: lock, link, clock, memory, battery. A few small files, once a second.

The update lock is a file that an application names in agent.toml's ``[updates]``. With ``lock = "flock"`` it is held
while somebody has an exclusive ``flock`` on it, which the kernel lets go when that process ends; with
``lock = "present"`` while the file exists, and whoever forgets to delete it stops all updates.
"""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.core.events import Conditions

__all__ = ["LOCKS", "Watched", "is_flocked", "read"]

LOCKS: Final = ("flock", "present")
_MEMORY: Final = Path("/proc/meminfo")
_SUPPLIES: Final = Path("/sys/class/power_supply")


@dataclass(frozen=True)
class Watched:
    """Files that say something about updates; an empty path is not looked at.

    Attributes:
        lock_file, lock: The update lock, and how it is held: one of ``LOCKS``.
        metered_file: While this file exists, the link costs money; a modem's script makes and deletes it.
    """

    lock_file: str = ""
    lock: str = "flock"
    metered_file: str = ""


def read(watched: Watched, now: float) -> Conditions:
    """Return the conditions at a moment, in seconds since 1970."""
    return Conditions(
        utc_offset_s=time.localtime(now).tm_gmtoff,
        locked_by=watched.lock_file if _is_locked(watched) else "",
        is_metered=bool(watched.metered_file) and Path(watched.metered_file).exists(),
        memory_kb=_memory_kb(),
        battery_percent=_battery(_SUPPLIES),
    )


def _is_locked(watched: Watched) -> bool:
    if not watched.lock_file:
        return False
    path = Path(watched.lock_file)
    return path.exists() if watched.lock == "present" else is_flocked(path)


def is_flocked(path: Path) -> bool:
    """True if somebody has an exclusive ``flock`` on a file.

    The only way to ask is to try: we hold a shared lock for some microseconds. An application that takes the lock
    in that moment with LOCK_NB is refused; without it, it waits so long.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def _memory_kb() -> int:
    """Return the kernel's estimate of what can be had without swapping, 0 if it does not tell."""
    for line in _text(_MEMORY).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def _battery(supplies: Path) -> int | None:
    """Return the charge of the weakest battery that is being emptied, None where there is none."""
    try:
        folders = list(supplies.iterdir())
    except OSError:
        return None
    charges = [
        int(charge)
        for folder in folders
        if _text(folder / "status").strip() == "Discharging"
        and (charge := _text(folder / "capacity").strip()).isdigit()
    ]
    return min(charges, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
