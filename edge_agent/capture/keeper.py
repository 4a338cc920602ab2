# SPDX-License-Identifier: Apache-2.0
"""The runner's part of a capture: looks at each answer, and keeps the inputs asked for.

Without an order an offer costs two clock readings; the order's file is looked at once a second. Nothing here may ever
fail an inference: a full disk ends the capture, not the answer.
"""

import io
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.capture.ring import Ring, read_order
from edge_agent.core.capture import Kept, Seen, may_keep, why_kept
from edge_contract.capture import MAX_SAMPLE_BYTES, CaptureOrder, join_content

__all__ = ["Keeper", "keeper_beside"]

_LOOK_S: Final = 1.0
_FREE_BYTES: Final = 64_000_000  # a capture never takes the last space of a card


class Keeper:
    """Keeps inputs of one runner for the campaign that is in force.

    Args:
        data: The device's data folder.
        model: Name of the model that answers.
        share: Gives uniform random numbers in [0, 1).
        wall, mono: Seconds since 1970, and monotonic seconds.
    """

    def __init__(
        self,
        data: Path,
        model: str,
        *,
        share: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data, self._model, self._share, self._wall, self._mono = data, model, share, wall, mono
        self._order: CaptureOrder | None = None
        self._ring, self._kept, self._is_drifted = Ring(data, "none"), Kept(), False
        self._looked, self._seen = -_LOOK_S, 0
        self._last: NDArray[Any] | None = None

    def offer(
        self, raw: NDArray[Any], *, confidence: float | None = None, cls: int | None = None, disagrees: bool = False
    ) -> str:
        """Keep an input if the order in force asks for it; return why, empty if not.

        Args:
            raw: The input as it came from the source.
            confidence, cls: Of the answer, where the model tells them.
            disagrees: The shadow answered otherwise.
        """
        now = self._mono()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
        order = self._order
        if order is None:
            return ""
        if disagrees and raw is self._last:  # it was kept for its answer already
            return ""
        seen = Seen(self._model, confidence, self._is_drifted, disagrees, self._share())
        why = why_kept(order.policy, seen)
        if disagrees and why != "disagreeing":  # an input is offered once for its answer, and once for the shadow's
            return ""
        done = self._keep(order, raw, why, confidence, cls) if why else ""
        self._last = raw if done else None
        return done

    def _look(self) -> None:
        path = self._data / "capture" / "order.json"
        try:
            changed = path.stat().st_mtime_ns
            if changed != self._seen:
                self._seen, self._order = changed, read_order(self._data)
                self._ring = Ring(self._data, self._order.campaign if self._order else "none")
                self._kept = self._ring.kept()
            self._is_drifted = self._order is not None and (path.parent / "drifted").exists()
        except OSError:
            self._order, self._seen = None, 0

    def _keep(self, order: CaptureOrder, raw: NDArray[Any], why: str, confidence: float | None, cls: int | None) -> str:
        wall = self._wall()
        if not may_keep(order, self._model, self._kept, raw.nbytes, wall):
            return ""
        told = {"confidence": confidence, "class": cls}
        facts = {"why": why, "time": wall, "model": self._model, **{k: v for k, v in told.items() if v is not None}}
        content = join_content(facts, _npy(raw))
        if len(content) > MAX_SAMPLE_BYTES // 2 or not may_keep(order, self._model, self._kept, len(content), wall):
            return ""
        try:
            if _free(self._data) < _FREE_BYTES or (self._data / "storage.low").exists():
                return ""
            self._kept = self._ring.keep(content, self._kept)
        except OSError:  # no space, a folder that was just forgotten: look again before the next one
            self._order, self._seen = None, 0
            return ""
        return why


def keeper_beside(counters: Path, model: str) -> Keeper:
    """Return the keeper of a runner that is known by its counter file: in the data folder, or in its ``run``."""
    folder = counters.parent
    return Keeper(folder.parent if folder.name == "run" else folder, model)


def _npy(raw: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(raw), allow_pickle=False)
    return buffer.getvalue()


def _free(folder: Path) -> int:
    import os

    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
