# SPDX-License-Identifier: Apache-2.0
"""A thread that does one thing again and again, and sooner when it is woken; a step that fails is tried again."""

import logging
import threading
from collections.abc import Callable

__all__ = ["Pulse"]

_log = logging.getLogger("strop.fleet")


class Pulse:
    """Calls ``step`` until it is stopped.

    Args:
        name: Of the thread.
        pause_s: Between the end of a step and the next one, in seconds.
        step: What is done; what it raises is logged.
        failure: What the log says then.
        at_once: Begin with a step, not with a pause.

    Example:
        >>> done = threading.Event()
        >>> pulse = Pulse("example", 60.0, done.set, "it failed")
        >>> pulse.start(); done.wait(5.0)
        True
        >>> pulse.stop()
    """

    def __init__(
        self, name: str, pause_s: float, step: Callable[[], object], failure: str, *, at_once: bool = True
    ) -> None:
        self._pause_s, self._step, self._failure, self._at_once = pause_s, step, failure, at_once
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """True once it is to end: a long step looks at it."""
        return self._stopped.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Do it now, or once more after the step under way."""
        self._woken.set()

    def stop(self, patience_s: float | None = None) -> None:
        """End after the step under way; wait for it, at most so many seconds."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        if not self._at_once:
            self._woken.wait(self._pause_s)
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                self._step()
            except Exception:  # a full disk today must not stop tomorrow's deadlines
                _log.exception("%s; it is tried again", self._failure)
            self._woken.wait(self._pause_s)
