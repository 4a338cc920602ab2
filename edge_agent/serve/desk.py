# SPDX-License-Identifier: Apache-2.0
"""Where a request meets the model: directly under its lock, or in the queue of a loop that belongs to somebody else."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from edge_agent.runner import model as files
from edge_agent.runner.answers import Answer
from edge_contract.errors import RuntimeAdapterError

__all__ = ["BusyError", "Desk", "Direct", "Queued"]

Array = NDArray[Any]
RETRY_AFTER_S: Final = 1


class BusyError(RuntimeAdapterError):
    """So many requests wait that one more would only wait longer; or one waited too long."""


class Desk(Protocol):
    """Answers inputs, from any thread."""

    def model(self) -> files.Model | None:
        """Return what answers now, None before the first model."""

    def ask(self, raw: Array) -> tuple[Answer, files.Model]:
        """Return the answer, and the model that gave it.

        Raises:
            BusyError: Too many wait, or it took too long.
            DataError: The input is refused.
            StropError: What the model raises.
        """


class Predicting(Protocol):
    """What ``edge_agent.Model`` is to the endpoint; named here, so that a runner process need not load it."""

    @property
    def file(self) -> files.Model: ...
    @property
    def predict(self) -> Callable[[Array], Answer]: ...


class Direct:
    """Answers by an embedded model; so many callers may wait for its lock.

    Args:
        model: The model.
        room: Requests under way at a time.
    """

    def __init__(self, model: Predicting, room: int = 16) -> None:
        self._model, self._room = model, threading.BoundedSemaphore(room)

    def model(self) -> files.Model | None:
        return self._model.file

    def ask(self, raw: Array) -> tuple[Answer, files.Model]:
        if not self._room.acquire(blocking=False):
            raise BusyError("too many requests wait", where=self._model.file.artefact.path, fix="try again later")
        try:
            while True:  # once more if the model was exchanged meanwhile: labels must be those of the answer
                model = self._model.file
                answer = self._model.predict(raw)
                if self._model.file is model:
                    return answer, model
        finally:
            self._room.release()


@dataclass
class _Request:
    """One input that somebody waits for."""

    answer: Answer | Exception | None = None
    model: files.Model | None = None


class Queued:
    """Hands inputs to a loop and waits for its reply.

    Args:
        offer: Puts (input, reply) into the loop's queue; False when it is full.
        timeout_s: Longest wait for a reply.
    """

    def __init__(self, offer: Callable[[Array, Callable[..., None]], bool], timeout_s: float = 10.0) -> None:
        self._offer, self._timeout_s = offer, timeout_s
        self._model: files.Model | None = None

    def holds(self, model: files.Model | None) -> None:
        """Hear which model answers from now on."""
        self._model = model

    def model(self) -> files.Model | None:
        return self._model

    def ask(self, raw: Array) -> tuple[Answer, files.Model]:
        request, done = _Request(), threading.Event()

        def reply(answer: Answer | Exception, model: files.Model | None) -> None:
            request.answer, request.model = answer, model
            done.set()

        if not self._offer(raw, reply):
            raise BusyError("too many requests wait", where="runner", fix="try again later")
        if not done.wait(self._timeout_s):
            raise BusyError(f"no answer within {self._timeout_s:g} s", where="runner", fix="try again later")
        if isinstance(request.answer, Exception):
            raise request.answer
        assert request.answer is not None  # set before the event
        assert request.model is not None  # nothing answers without one
        return request.answer, request.model
