# SPDX-License-Identifier: Apache-2.0
"""A thread beside the loop that looks from time to time whether something is due, can be woken, and ends quickly."""

import random
import threading
from collections.abc import Callable

__all__ = ["Beside"]


class Beside:
    """Calls ``look`` again and again, each time after the pause that the last call gave.

    Args:
        name: Of the thread.
        look: Does what is due; returns seconds until the next look. It must raise nothing: the thread would end.
        first_s: Pause before the first look.

    Example:
        >>> seen = threading.Event()
        >>> thread = Beside("example", lambda: (seen.set(), 3600.0)[1], first_s=0.0)
        >>> thread.start()
        >>> seen.wait(60)
        True
        >>> thread.stop()
    """

    def __init__(self, name: str, look: Callable[[], float], *, first_s: float) -> None:
        self._look, self._first_s = look, first_s
        self._stopped, self._woken, self._within_s = threading.Event(), threading.Event(), 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, for ever, beside the caller."""
        self._thread.start()

    def wake(self, within_s: float) -> None:
        """Look within so many seconds, at a random time: those who are woken together do not look together."""
        self._within_s = within_s
        self._woken.set()

    def stop(self) -> None:
        """End; a look that is under way is not waited for."""
        self._stopped.set()
        self._woken.set()

    def _run(self) -> None:
        pause = self._first_s
        while not self._stopped.is_set():
            if self._woken.wait(pause):
                self._stopped.wait(self._within_s * random.random())
                self._woken.clear()
            if not self._stopped.is_set():
                pause = self._look()
