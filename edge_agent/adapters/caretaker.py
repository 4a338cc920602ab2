# SPDX-License-Identifier: Apache-2.0
"""A thread that keeps the identity alive: it starts the helper when a renewal is due or the clock is not set.

Looking is cheap (two small files, once an hour); the helper is started for a reason only. Standard library only.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters import identity, time_floor
from edge_agent.adapters.beside import Beside
from edge_agent.adapters.trust import TrustHelper
from edge_agent.core.renewal import pause_s, renew_at
from edge_contract.errors import StropError

__all__ = ["Caretaker"]

LOOK_S: Final = 3600.0
START_S: Final = 20.0  # after a power cut a whole site starts at once


class Caretaker:
    """Renews the certificate of one device in time.

    Args:
        data: The device's data folder.
        device: Its name.
        helper: Does the work.
        log: Writes a line: level, text.
        share: Gives uniform random numbers in [0, 1).
    """

    def __init__(
        self,
        data: Path,
        device: str,
        helper: TrustHelper,
        log: Callable[[str, str], None],
        share: Callable[[], float] = random.random,
    ) -> None:
        self._data, self._device, self._helper, self._log, self._share = data, device, helper, log, share
        self._failures = 0
        self._thread = Beside("caretaker", lambda: self.look(time.time()), first_s=START_S * share())

    def start(self) -> None:
        """Begin to look after the identity, for ever, beside the caller."""
        self._thread.start()

    def stop(self) -> None:
        """End; a helper that runs is not waited for."""
        self._thread.stop()

    def look(self, system: float) -> float:
        """Do what is due and return how long nothing will be, in seconds."""
        try:
            if self.is_due(system):
                self._tell(self._helper.care(self._device))
            self._failures = 0
            return LOOK_S * (0.5 + 0.5 * self._share())
        except StropError as error:
            self._failures += 1
            if self._failures == 1:  # once; a device may be offline for months
                self._log("warning", f"the certificate is not renewed: {error}")
        except Exception as error:  # a fault of ours must not end the thread: a certificate would run out unseen
            self._failures += 1
            self._log("error", f"caretaker: {type(error).__name__}: {error}")
        return pause_s(self._failures, self._share())

    def is_due(self, system: float) -> bool:
        """True if the helper is to be started: the clock is not set, or the certificate is past its half."""
        if not (self._data / "identity" / "device.crt").exists():
            return False
        life = identity.life(self._data)
        if life is None:
            return True  # an identity of before: the helper writes its dates down
        folder = self._data / "tuf"
        if time_floor.quality(folder, system) == "unset":
            return True
        return time_floor.trusted_now(folder, system) >= renew_at(life.not_before, life.not_after, self._device)

    def _tell(self, done: dict[str, Any]) -> None:
        if done["renewed"]:
            ends = time.strftime("%Y-%m-%d", time.gmtime(float(done["not_after"])))
            self._log("info", f"the certificate was renewed until {ends}")
