# SPDX-License-Identifier: Apache-2.0
"""What every source is to the engine: when the next input is due, and the input; by a clock, or pushed by a thread."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from numpy.typing import NDArray

from edge_agent.runner.answers import Answer
from edge_agent.runner.model import Model
from edge_contract.errors import ContractError, UsageError
from edge_contract.fields import Fields

__all__ = ["BACKLOG_S", "MAX_RATE_HZ", "NOW", "Pace", "Pushed", "Reply", "Source", "Taken", "read_spec"]

Array = NDArray[Any]
BACKLOG_S: Final = 1.0
MAX_RATE_HZ: Final = 100_000.0
NOW: Final = float("-inf")
"""A moment that is always past."""
Reply = Callable[[Answer | Exception, Model | None], None]


class Taken(NamedTuple):
    """One input.

    Attributes:
        ref: Which one it is: ``<source>:<number or name>``.
        raw: As the source gives it.
        taken_at: When it was taken, seconds of the monotonic clock; None where nobody knows.
        reply: Called with the answer or the error, and the model, by sources that somebody waits for.
    """

    ref: str
    raw: Array
    taken_at: float | None = None
    reply: Reply | None = None


class Source(Protocol):
    """A source of inputs; called from the engine's thread only."""

    name: str

    @property
    def due(self) -> float | None:
        """When the next input is due, monotonic seconds; None: not before the source wakes the engine."""

    def take(self) -> Taken | None:
        """Return the next input, None after the last one."""

    def taken(self, now: float) -> None:
        """Count an input that was taken now."""

    def restart(self, now: float) -> None:
        """Go on after a pause."""

    def holds(self, model: Model | None) -> None:
        """Hear which model answers from now on."""

    def lost(self) -> int:
        """Return how many inputs were never given since the last question."""

    def close(self) -> None:
        """Let go of files, sockets and threads."""


class Pace:
    """When the next input is due, on any monotonic clock in seconds.

    Due times are counted from one start, so they do not drift by the time that an inference takes. Up to BACKLOG_S late
    is caught up; more (a load, a suspended board) is forgiven, because a burst would say nothing new.

    Example:
        >>> pace = Pace(20.0, now=100.0)
        >>> pace.taken(100.004), pace.due
        (None, 100.05)
    """

    def __init__(self, rate_hz: float, now: float) -> None:
        self._rate_hz, self._start, self._count = rate_hz, now, 0

    @property
    def due(self) -> float:
        """When the next input is due; with a rate of 0 always now."""
        return self._start + self._count / self._rate_hz if self._rate_hz else self._start

    def taken(self, now: float) -> None:
        """Count an input that was taken now."""
        self._count += 1
        if now - self.due > BACKLOG_S:
            self.restart(now)

    def restart(self, now: float) -> None:
        """Begin again: the next input is due now."""
        self._start, self._count = now, 0


class Pushed:
    """A source that a thread feeds: a short queue, and one word to the engine for each input.

    Args:
        name: Of the source.
        wake: Makes the engine look; may be called from any thread.
        room: Inputs that wait at a time.
        keeps_newest: When there is no room, the oldest input goes (a camera); else the feeder waits (a file).
    """

    def __init__(self, name: str, wake: Callable[[], None], *, room: int, keeps_newest: bool) -> None:
        self.name, self._wake, self._room, self._keeps_newest = name, wake, room, keeps_newest
        self._waiting: deque[Taken] = deque()
        self._change = threading.Condition()
        self._is_over = self._is_closed = False
        self._lost = 0

    @property
    def due(self) -> float | None:
        return NOW if self._waiting or self._is_over else None

    def take(self) -> Taken | None:
        with self._change:
            self._change.notify()
            return self._waiting.popleft() if self._waiting else None

    def taken(self, now: float) -> None:
        """Nothing is paced here: the feeder decides."""

    def restart(self, now: float) -> None:
        """What waited during the pause is of the past, where only the newest counts."""
        with self._change:
            while self._keeps_newest and len(self._waiting) > 1:
                self._waiting.popleft()
                self._lost += 1

    def holds(self, model: Model | None) -> None:
        """Most sources need not know."""

    def lost(self) -> int:
        with self._change:
            lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the feeder shall end."""
        return self._is_closed

    def push(self, taken: Taken) -> bool:
        """Give an input to the engine, from the feeder's thread; return False when the source is closed."""
        with self._change:
            while len(self._waiting) >= self._room and not self._is_closed:
                if self._keeps_newest:
                    self._waiting.popleft()
                    self._lost += 1
                else:
                    self._change.wait()
            if self._is_closed:
                return False
            self._waiting.append(taken)
        self._wake()
        return True

    def end(self) -> None:
        """Say, from the feeder's thread, that nothing more comes."""
        self._is_over = True
        self._wake()


def read_spec(document: dict[str, Any], where: str, kind: str, keys: tuple[str, ...]) -> Fields:
    """Return the fields of a source's specification of one kind.

    Raises:
        UsageError: It is of another kind, or has a key that this kind does not know.
    """
    given = {key: value for key, value in document.items() if value is not None}
    if unknown := set(given) - {"kind", *keys}:
        raise UsageError(f"unknown key '{min(unknown)}'", where=where, fix=f"use {', '.join(('kind', *keys))}")
    try:
        fields = Fields(given, where, UsageError)
        fields.text("kind", among=(kind,))
    except ContractError as error:
        raise UsageError(error.what, where=error.where, fix=error.fix) from error
    return fields
