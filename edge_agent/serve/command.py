# SPDX-License-Identifier: Apache-2.0
"""``strop agent serve``: the local endpoint over an embedded model, until SIGTERM or Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent import Model
from edge_agent.serve.desk import Direct
from edge_agent.serve.server import HOST, Limits, Server

__all__ = ["until_stopped"]


def until_stopped(
    model: Model,
    *,
    port: int | None,
    path: Path | None,
    limits: Limits,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Serve a model until SIGTERM or SIGINT.

    Args:
        model: Closed at the end.
        port: On loopback, 0 for any free one; None for none.
        path: Of a Unix socket; None for none.
        limits: Of a client.
        tell: Hears where it listens, once it does.

    Raises:
        UsageError: Neither port nor path, or one that cannot be used.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    with model, contextlib.closing(Server(Direct(model), port=port, path=path, limits=limits)) as server:
        url = f"http://{HOST}:{server.port}" if server.port is not None else ""
        tell({"url": url, "socket": str(path or ""), "bundle": model.bundle, "version": model.version})
        stop.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
