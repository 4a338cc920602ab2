# SPDX-License-Identifier: Apache-2.0
"""The control process's part of a capture: a thread that runs the helper's errands. Standard library only.

It exists only where the person at the device allows captures: ``[capture] allowed = true`` in agent.toml. Where it is
not allowed (any more), what an earlier campaign left is forgotten at the start, and nobody is asked.
"""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters.beside import Beside
from edge_agent.adapters.trust import TrustHelper
from edge_agent.capture import ring
from edge_agent.core.renewal import pause_s
from edge_contract.errors import StropError

__all__ = ["Courier"]

LOOK_S: Final = 30.0
ERRAND_S: Final = 900.0
"""Between two errands: how late a device learns of a campaign that nobody told it of, and how long a sample waits."""
NUDGE_S: Final = 2.0
"""Within so many seconds it asks when it is told to; a fleet that is told at once does not ask at once."""


class Courier:
    """Runs the errands of one device's captures.

    Args:
        data: The device's data folder.
        device: Its name.
        helper: Does the work.
        log: Writes a line: level, text.
        allowed: What the person at the device decided.
        may_send: Tells whether samples may be sent now: not metered, inside the window.
        is_drifted: Tells whether this device's drift verdict is an alarm.
    """

    def __init__(
        self,
        data: Path,
        device: str,
        helper: TrustHelper,
        log: Callable[[str, str], None],
        *,
        allowed: bool,
        may_send: Callable[[], bool],
        is_drifted: Callable[[], bool],
    ) -> None:
        self._data, self._device, self._helper, self._log, self._allowed = data, device, helper, log, allowed
        self._may_send, self._is_drifted = may_send, is_drifted
        self._failures, self._due, self._told = 0, 0.0, ""
        self._is_nudged = False
        self._thread = Beside("courier", self._looked, first_s=LOOK_S)

    def start(self) -> None:
        """Begin, where captures are allowed; else forget what is left of one."""
        if self._allowed:
            self._due = time.monotonic() + LOOK_S * random.random()
            self._thread.start()
        elif (self._data / "capture").exists():
            self._log("info", f"captures are not allowed: {ring.forget_all(self._data)} samples forgotten")

    def stop(self) -> None:
        """End; a helper that runs is not waited for."""
        self._thread.stop()

    def nudge(self, _body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask for orders soon: the command ``captures``. Where captures are not allowed, nothing is asked."""
        if self._allowed:
            self._is_nudged = True
            self._thread.wake(NUDGE_S)
        return {"allowed": self._allowed}

    def _looked(self) -> float:
        if self._is_nudged:  # here, not in nudge: an errand under way would overwrite it at its end
            self._is_nudged, self._due = False, 0.0
        self.look(time.monotonic())
        return LOOK_S

    def look(self, mono: float) -> None:
        """Mark drift for the runner, and run an errand if one is due."""
        try:
            ring.drift_mark(self._data, is_drifted=self._is_drifted())
            if mono < self._due or not (self._data / "identity" / "device.crt").exists():
                return
            self._tell(self._helper.capture(self._device, allowed=True, may_send=self._may_send()))
            self._failures, self._due = 0, mono + ERRAND_S * (0.9 + 0.2 * random.random())
        except (StropError, OSError) as error:
            self._failures += 1
            if self._failures == 1:  # once; a device may be offline for months
                self._log("info", f"captures wait: {error}")
            self._due = mono + max(LOOK_S, pause_s(self._failures, random.random()))

    def _tell(self, done: dict[str, Any]) -> None:
        if done["refused"] and done["refused"] != self._told:
            self._log("warning", f"an order to capture is refused: {done['refused']}")
        self._told = done["refused"]
        if done["sent"] or done["forgotten"]:
            what = f"{done['sent']} samples sent, {done['waiting']} wait, {done['forgotten']} forgotten"
            self._log("info", f"capture {done['campaign'] or 'ended'}: {what}")
