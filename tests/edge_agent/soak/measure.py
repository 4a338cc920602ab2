# SPDX-License-Identifier: Apache-2.0
"""Whether memory, file descriptors and disk of an agent stay flat: samples, a robust slope, and what it may be."""

import contextlib
import os
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from tests.edge_agent.soak.stage import Board

__all__ = ["Series", "Sampler", "slope"]

_TOLERATED = {"rss_kb": (0.10, 1500.0), "runner_rss_kb": (0.10, 4000.0), "fds": (0.0, 4.0), "disk_kb": (0.10, 1024.0)}
"""What a series may rise over the run: a share of its median, or this much, whichever is more. On the disk SQLite keeps
the size that the longest outage so far needed, which a short run reaches at its end."""
_WARM = 0.2
"""Share of the run at its beginning that does not count: modules are loaded, all slots are filled once."""


def slope(points: list[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope: the median of the slopes of all pairs, which a third of wild points cannot move.

    Sen, *Estimates of the regression coefficient based on Kendall's tau* (1968).

    Example:
        >>> slope([(0, 1.0), (1, 2.0), (2, 900.0), (3, 4.0), (4, 5.0)])
        1.0
    """
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
    return median(slopes) if slopes else 0.0


@dataclass
class Series:
    """One number over time."""

    points: list[tuple[float, float]] = field(default_factory=list)

    def judge(self, name: str) -> dict[str, Any]:
        """Return the medians of the first and the last third after the warm-up, and how far it rises by the slope."""
        if len(self.points) < 6:
            return {"first": 0.0, "last": 0.0, "rise": 0.0, "allowed": 0.0, "is_flat": True, "n": len(self.points)}
        start, end = self.points[0][0], self.points[-1][0]
        warm = [point for point in self.points if point[0] >= start + _WARM * (end - start)]
        thinned = warm[:: max(1, len(warm) // 400)]
        third = max(1, len(warm) // 3)
        first, last = (median(value for _, value in part) for part in (warm[:third], warm[-third:]))
        rise = slope(thinned) * (warm[-1][0] - warm[0][0])
        share, least = _TOLERATED[name]
        allowed = max(share * first, least)
        return {
            "first": first,
            "last": last,
            "rise": round(rise, 1),
            "allowed": round(allowed, 1),
            "is_flat": rise <= allowed,
            "n": len(warm),
        }


class Sampler:
    """Samples one board's agent."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.series = {name: Series() for name in _TOLERATED}

    def take(self, passed: float) -> None:
        """Take one sample; what cannot be read just now is left out."""
        process = self._board.process
        if process is None or process.poll() is not None:
            return
        runner = self._board.runner()
        with contextlib.suppress(OSError):
            self.series["fds"].points.append((passed, float(len(list(Path(f"/proc/{process.pid}/fd").iterdir())))))
        for name, pid in (("rss_kb", process.pid), ("runner_rss_kb", runner)):
            with contextlib.suppress(OSError, IndexError):
                if pid:
                    self.series[name].points.append((passed, _rss_kb(pid)))
        self.series["disk_kb"].points.append((passed, _disk_kb(self._board.data)))


def _rss_kb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def _disk_kb(folder: Path) -> float:
    """Return what a data folder takes, without its logs, which grow to 1 MB each and no further."""
    total = 0
    for root, folders, files in os.walk(folder):
        if Path(root) == folder:
            folders[:] = [name for name in folders if name != "logs"]
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(root, name).lstat().st_blocks * 512
    return total / 1024
