# SPDX-License-Identifier: Apache-2.0
"""The storage guard: three numbers that the disk must keep to, a reserve for the day it is full, and what is written.

Below a limit the agent takes nothing more that it can do without: no downloads, no captures, no metric rows. Inference,
results and heartbeats go on. The reserve is a file that holds blocks and no data; when the disk is full it is given
up, so that journal and outbox can still write, and it is made again when there is room.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters.store import Journal
from edge_agent.storage_config import Limits
from edge_contract.errors import StoreError

__all__ = ["MARK", "GuardedJournal", "StorageGuard", "own_bytes", "written"]

MARK: Final = "storage.low"
"""This file in the data folder tells runners that captures have to stop."""
LOOK_S: Final = 5.0
OWN_S: Final = 600.0
"""Between two counts of what the data folder takes: every file is looked at."""
_DAY_S: Final = 86400.0
_MB: Final = 1_000_000
_EASE: Final = 1.1
"""What is short has to recover by so much, or the agent would go back and forth."""


class StorageGuard:
    """Looks at the disk of one data folder.

    Args:
        data: The folder.
        limits: What it has to keep to.
        disk: Gives a folder's file system.

    Attributes:
        low: Which limit is broken, for people; empty while none is. It does not change while it is the same one.
        over: The same for the write budget of this day.
        facts: Numbers for the heartbeat.
    """

    def __init__(self, data: Path, limits: Limits, disk: Callable[[Path], os.statvfs_result] = os.statvfs) -> None:
        self._data, self._limits, self._disk = data, limits, disk
        self._reserve = data / "reserve"
        self._look_at = self._count_at = 0.0
        self._own = 0
        self._meter = _Meter()
        self.low, self.over, self.facts = "", "", dict[str, Any]()

    def look(self, mono: float, pids: Iterable[int] = ()) -> None:
        """Look, if it is time; ``pids`` are runners, whose writes count as ours."""
        if mono < self._look_at:
            return
        self._look_at = mono + LOOK_S
        if mono >= self._count_at:
            self._count_at, self._own = mono + OWN_S, own_bytes(self._data)
        disk = self._disk(self._data)
        free = disk.f_bavail * disk.f_frsize
        self._tend_reserve(free)
        self.low = self._broken(free, disk.f_favail if disk.f_files else None)
        self._mark()
        today, budget = self._meter.count(("self", *map(str, pids)), mono), self._limits.write_budget_mb_per_day
        self.over = f"more than {budget} MB written in a day" if budget and today > budget * _MB else ""
        self.facts = {"own_mb": self._own // _MB, "written_mb": round(today / _MB, 2)}
        self.facts.update({"storage_low": 1} if self.low else {})

    def give_up(self) -> bool:
        """Delete the reserve; True if there was one, and a write that was refused may be tried again."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        self._look_at = 0.0
        return True

    def _broken(self, free: int, inodes: int | None) -> str:
        limits, ease = self._limits, _EASE if self.low else 1.0
        if free < limits.least_free_mb * _MB * ease:
            return f"less than {limits.least_free_mb} MB of the disk are free"
        if inodes is not None and inodes < limits.least_free_inodes * ease:
            return f"fewer than {limits.least_free_inodes} inodes are free"
        if limits.most_own_mb and self._own * ease > limits.most_own_mb * _MB:
            return f"the data folder takes more than {limits.most_own_mb} MB"
        return ""

    def _tend_reserve(self, free: int) -> None:
        """Give the reserve up when hardly more than it is left; make it where it does not touch the limit."""
        size = self._limits.reserve_mb * _MB
        try:
            held = self._reserve.stat().st_size
        except OSError:
            held = 0
        if held and (free < size // 2 or held != size):
            self.give_up()
        elif not held and size and free >= self._limits.least_free_mb * _MB * _EASE + size:
            _allocate(self._reserve, size)

    def _mark(self) -> None:
        path = self._data / MARK
        try:
            if self.low and not path.exists():
                path.touch()
            elif not self.low:
                path.unlink(missing_ok=True)
        except OSError:
            return  # a disk that takes no empty file takes no capture either


class GuardedJournal(Journal):
    """The journal, which gets the reserve's room before it gives up.

    Args:
        path: The file.
        refused: Called when the disk refuses; True if it is worth another try.
    """

    def __init__(self, path: Path, refused: Callable[[], bool]) -> None:
        super().__init__(path)
        self._refused = refused

    def write(self, document: Mapping[str, Any]) -> None:
        """As ``Journal.write``; raises StoreError."""
        try:
            super().write(document)
        except StoreError:
            if not self._refused():
                raise
            super().write(document)


class _Meter:
    """Counts bytes written since the day began; a day begins with the process, and 24 hours later.

    What a process had written before it is first seen does not count.
    """

    def __init__(self) -> None:
        self._ends, self._today, self._last = 0.0, 0, dict[str, int]()

    def count(self, pids: Iterable[str], mono: float) -> int:
        if mono >= self._ends:
            self._ends, self._today = mono + _DAY_S, 0
        now = {pid: written(pid) for pid in pids}
        self._today += sum(max(0, n - self._last.get(pid, n)) for pid, n in now.items())
        self._last = now
        return self._today


def written(pid: str) -> int:
    """Return the bytes that a process and its ended children gave to the storage layer, 0 if it is gone.

    Standard: ``/proc/PID/io`` of proc(5), ``write_bytes`` less ``cancelled_write_bytes``.
    """
    try:
        lines = Path("/proc", pid, "io").read_text().splitlines()
    except OSError:
        return 0
    found = {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
    return found.get("write_bytes", 0) - found.get("cancelled_write_bytes", 0)


def own_bytes(folder: Path) -> int:
    """Return what the files of a folder take on the disk; a file that is shared by two names counts twice."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_blocks * 512
            except OSError:
                continue
    return total


def _allocate(path: Path, size: int) -> None:
    """Take blocks for a file without writing them; what the disk refuses is not there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)
