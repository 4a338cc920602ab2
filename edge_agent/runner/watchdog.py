# SPDX-License-Identifier: Apache-2.0
"""A runner that hangs in native code ends itself, loudly: nothing else can reach it there.

Two guards, because there are two ways to hang. Native code that has given Python's lock away (an invoke) is watched by
a thread: it reports what hangs and leaves. Native code that keeps the lock (a delegate's creation) stops that thread,
too; so the thread winds up a timer of the C library every quarter of a second, and when it no longer can, the timer
prints every thread's stack and ends the process.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["EXIT_HUNG", "STUCK_S", "Watchdog"]

Call = Callable[[Any], Any]
EXIT_HUNG: Final = 75
"""The exit code after a hung invoke (``EX_TEMPFAIL``): the device's fault, not the model's."""
STUCK_S: Final = 60.0
"""So long may native code keep Python's lock: opening a large model does, for seconds."""
_TICK_S: Final = 0.25


class Watchdog:
    """Ends the process when a watched call takes too long.

    Args:
        timeout_s: Longest time of one call; 0 watches nothing.
        report: Called with a reason before the end, from the watchdog's thread.
        stuck_s: Longest time without Python's lock.
        leave: Ends the process.
    """

    def __init__(
        self,
        timeout_s: float,
        report: Callable[[str], None],
        *,
        stuck_s: float = STUCK_S,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._timeout_s, self._report, self._stuck_s, self._leave = timeout_s, report, stuck_s, leave
        self._deadline = float("inf")
        self._closing = threading.Event()
        if timeout_s > 0:
            self._wind()  # before the thread first runs: what hangs at once would never let it
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def watched(self, call: Call) -> Call:
        """Return a call that must end in time; the same one where nothing is watched."""
        if self._timeout_s <= 0:
            return call

        def timed(x: Any) -> Any:
            self._deadline = time.monotonic() + self._timeout_s
            try:
                return call(x)
            finally:
                self._deadline = float("inf")

        return timed

    def _watch(self) -> None:
        tick = min(_TICK_S, self._timeout_s / 4)
        while not self._closing.wait(tick):
            self._wind()
            if time.monotonic() > self._deadline:
                self._report(f"no answer within {self._timeout_s:g} s: the process ends itself")
                self._leave(EXIT_HUNG)
                return
        faulthandler.cancel_dump_traceback_later()

    def _wind(self) -> None:
        faulthandler.dump_traceback_later(self._stuck_s, exit=True, file=sys.__stderr__ or 2)

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
