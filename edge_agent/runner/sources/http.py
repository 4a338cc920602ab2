# SPDX-License-Identifier: Apache-2.0
"""Inputs that other programs on the device ask about: the local endpoint as a source of the runner."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_agent.runner.model import Model
from edge_agent.runner.sources.base import Pushed, Reply, Taken, read_spec
from edge_agent.serve.desk import BusyError, Queued
from edge_agent.serve.server import Limits, Server
from edge_contract.errors import UsageError

__all__ = ["HttpSource", "open_spec"]


class HttpSource(Pushed):
    """An endpoint whose requests wait for the engine.

    Args:
        name: Of the source.
        wake: Makes the engine look.
        port: On loopback; None for none.
        path: Of a Unix socket; None for none.
        room: Requests that wait at a time; further ones are told 503.
        limits: Of a client.
        timeout_s: Longest wait of one request.
    """

    def __init__(
        self,
        name: str,
        wake: Callable[[], None],
        *,
        port: int | None,
        path: Path | None,
        room: int,
        limits: Limits,
        timeout_s: float,
    ) -> None:
        super().__init__(name, wake, room=room, keeps_newest=False)
        self._numbers = itertools.count()
        self._desk = Queued(self._offer, timeout_s)
        self.server = Server(self._desk, port=port, path=path, limits=limits)

    def _offer(self, raw: NDArray[Any], reply: Reply) -> bool:
        """Queue a request if there is room; nobody is made to wait for room."""
        with self._change:
            if len(self._waiting) >= self._room or self._is_closed:
                return False
            self._waiting.append(Taken(f"{self.name}:{next(self._numbers)}", raw, None, reply))
        self._wake()
        return True

    def holds(self, model: Model | None) -> None:
        self._desk.holds(model)

    def close(self) -> None:
        super().close()
        with self._change:
            waiting, self._waiting = list(self._waiting), type(self._waiting)()
        for taken in waiting:
            if taken.reply is not None:
                taken.reply(BusyError("the endpoint is closed", where=self.name), None)
        self.server.close()


_KEYS = ("port", "socket", "max_body_bytes", "max_connections", "max_waiting", "timeout_s")


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> HttpSource:
    """Open an endpoint.

    Raises:
        UsageError: A key that is unknown or out of range; or a port or socket that cannot be used.
    """
    del now  # its clients are its clock
    where = f"source '{name}'"
    f = read_spec(spec, where, "http", _KEYS)
    port = f.integer("port", -1)
    if not -1 <= port < 65536:
        raise UsageError(f"port {port}", where=f"{where}.port", fix="use 1 to 65535, or 0 for any free one")
    path = f.text("socket", "")
    limits = Limits(
        body=f.integer("max_body_bytes", Limits.body, minimum=1),
        connections=f.integer("max_connections", Limits.connections, minimum=1),
    )
    return HttpSource(
        name,
        wake,
        port=port if port >= 0 else None,
        path=Path(path) if path else None,
        room=f.integer("max_waiting", 16, minimum=1),
        limits=limits,
        timeout_s=f.number("timeout_s", 10.0),
    )
